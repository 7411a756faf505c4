package ext4_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// TestFirstMetaBG reads a filesystem some of whose group descriptors follow the
// superblock, while others are in the groups that they describe, as after it grew
// while it was mounted.
func TestFirstMetaBG(t *testing.T) {
	path := makeImage(t, 700<<20, "-t", "ext4", "-b", "1024", "-O", "^resize_inode,meta_bg,^has_journal")
	disktest.Run(t, "debugfs", "-w", "-R", "set_super_value first_meta_bg 1", path)
	disktest.Run(t, "sh", "-c", `e2fsck -fy "$0" || test $? = 1`, path) // which counts the blocks of each group anew
	dir, unmount := disktest.Mount(t, path, "ext4", "rw")
	for i := range 200 { // in all groups
		sub := fmt.Sprintf("%s/%d", dir, i)
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(sub+"/file", bytes.Repeat([]byte{byte(i)}, 1_000_000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	unmount()
	fs := openFilesystem(t, path)
	disktest.CompareWithKernel(t, path, "ext4", fs)
	checkUsed(t, path, fs)
	disktest.CheckReadsUsed(t, path, openUncached)
}

// TestDirectoryDamage spoils one block of a directory: the entries of the others
// are there, before the error.
func TestDirectoryDamage(t *testing.T) {
	m := disktest.LoadSeed(t, "csum")
	raw := make([]byte, m.Length)
	if _, err := m.ReadAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(raw, []byte("39nnnn"))
	raw[at] ^= 1
	fs, err := ext4.Open(disktest.Image{ReaderAt: bytes.NewReader(raw), Length: m.Length}, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ino := disktest.Lookup(t, fs, "large")
	names := 0
	count := func(disk.DirEntry) error { names++; return nil }
	if err := fs.ReadDir(ino, count); !errors.Is(err, disk.ErrCorrupt) {
		t.Errorf("the error is %v", err)
	}
	if names < 20 || names > 40 { // of 41
		t.Errorf("%d names", names)
	}
	stop := errors.New("stop")
	if err := fs.ReadDir(ino, func(disk.DirEntry) error { return stop }); err != stop {
		t.Errorf("the error of yield comes back as %v", err)
	}
}

// TestEntryDamage spoils one entry of a directory, which says how long it is all the
// same: it alone is missing.
func TestEntryDamage(t *testing.T) {
	for text, change := range map[string]func(entry []byte){
		"refers to inode 97": func(e []byte) { binary.LittleEndian.PutUint32(e, 97) },
		"'/' or NUL":         func(e []byte) { e[8] = '/' },
		"a name of 0 bytes":  func(e []byte) { e[6] = 0 },
	} {
		s := newFieldSeed(t, "plain")
		large := disktest.Lookup(t, s.fs, "large")
		before, err := disk.List(s.fs, large)
		if err != nil {
			t.Fatal(err)
		}
		change(s.raw[bytes.Index(s.raw, []byte("39nnnn"))-8:])
		fs, err := s.open()
		if err != nil {
			t.Fatal(err)
		}
		after, err := disk.List(fs, large)
		if !errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), text) || len(after) != len(before)-1 {
			t.Errorf("%d entries of %d, %v", len(after), len(before), err)
		}
	}
}

// TestDamagedDots spoils the entries that a directory starts with, of one block and of
// a hash tree. What the kernel lists is listed, but for the directory in itself, which
// nobody can enter, and one error tells.
func TestDamagedDots(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		name   string
		change func(block []byte)
		text   string
		itself string // the directory's name in itself
	}{
		{"inode of itself", func(b []byte) { le.PutUint32(b, 11) }, `entry 0 is not "."`, ""},
		{"no inode of itself", func(b []byte) { le.PutUint32(b, 0) }, `entry 0 is not "."`, ""},
		{"name of itself", func(b []byte) { b[8] = 'x' }, `entry 0 is not "."`, "x"},
		{"name with a NUL", func(b []byte) { b[6] = 2 }, `entry 0 is not "."`, ""},
		{"another file", func(b []byte) { le.PutUint32(b, 11); b[8] = 'x' }, `entry 0 is not "."`, ""},
		{"name of the parent", func(b []byte) { b[12+8] = 'x' }, `entry 1 is not ".."`, ""},
		{"short name of the parent", func(b []byte) { b[12+6] = 1 }, `entry 1 is not ".."`, ""},
		{"both names", func(b []byte) { b[8], b[12+8] = 'x', 'y' }, `entry 0 is not "."`, "x"},
	} {
		for _, features := range []string{"", ",dir_index", ",dir_index,metadata_csum"} {
			t.Run(c.name+features, func(t *testing.T) {
				path := makeImage(t, 512<<10, "-t", "ext4", "-b", "1024", "-N", "96", "-I", "256", "-O", "none,filetype,extent"+features)
				dir, unmount := disktest.Mount(t, path, "ext4", "rw")
				g := &disktest.Generator{T: t, Dir: dir}
				folders := map[string]int{"few": 3, "many": 40}
				for folder, files := range folders {
					if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
						t.Fatal(err)
					}
					for i := range files {
						g.File(fmt.Sprintf("%s/%d%s", folder, i, strings.Repeat("n", 60)), nil)
					}
				}
				unmount()
				raw := readImage(t, path)
				seal := newSealer(bytes.Clone(raw)).seal
				for folder := range folders {
					block, err := strconv.Atoi(strings.TrimSpace(string(disktest.Run(t, "debugfs", "-R", "bmap "+folder+" 0", path))))
					if err != nil {
						t.Fatal(err)
					}
					c.change(raw[block*1024:][:1024])
					seal(raw, block*1024)
				}
				if err := os.WriteFile(path, raw, 0o644); err != nil {
					t.Fatal(err)
				}
				fs := openFilesystem(t, path)
				dir, unmount = disktest.Mount(t, path, "ext4", "ro")
				defer unmount()
				for folder, files := range folders {
					list, err := disk.List(fs, disktest.Lookup(t, fs, folder))
					if !errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), c.text) {
						t.Errorf("%s: the error is %v, want one with %s", folder, err, c.text)
					}
					var got, want []string
					for _, e := range list {
						got = append(got, string(e.Name))
					}
					kernel, err := os.ReadDir(filepath.Join(dir, folder))
					for _, e := range kernel {
						if e.Name() != c.itself {
							want = append(want, e.Name())
						}
					}
					if err != nil || len(want) < files || !slices.Equal(got, want) {
						t.Errorf("%s: %q is listed, the kernel has %q, %v", folder, got, want, err)
					}
				}
			})
		}
	}
}

// TestDirectoryOfItself maps all blocks of a directory to one: it would have the
// same names again and again.
func TestDirectoryOfItself(t *testing.T) {
	for name, double := range map[string]func(s *fieldSeed, block []byte){
		"map": func(s *fieldSeed, block []byte) { copy(block[4:8], block) }, // block 1 is block 0
		"plain": func(s *fieldSeed, block []byte) { // an extent for each of two blocks
			le := binary.LittleEndian
			le.PutUint16(block[2:], 2)
			le.PutUint16(block[16:], 1)
			copy(block[24:36], block[12:24])
			le.PutUint32(block[24:], 1)
		},
	} {
		s := newFieldSeed(t, name)
		double(s, s.raw[s.inode("large")+0x28:])
		fs, err := ext4.Open(disktest.Image{ReaderAt: bytes.NewReader(s.raw), Length: int64(len(s.raw))}, ext4.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ino := disktest.Lookup(t, s.fs, "large")
		err = fs.ReadDir(ino, func(disk.DirEntry) error { return nil })
		if !errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), "twice") {
			t.Errorf("%s: a directory with a block twice: %v", name, err)
		}
	}
}

// TestLustreXattr makes the inode of an attribute's value one of Lustre's first
// kind, which has no hashes.
func TestLustreXattr(t *testing.T) {
	path := makeImage(t, 8<<20, "-t", "ext4", "-b", "1024", "-N", "64", "-O", "ea_inode,^metadata_csum,^has_journal")
	dir, unmount := disktest.Mount(t, path, "ext4", "rw")
	g := &disktest.Generator{T: t, Dir: dir}
	value := []byte(strings.Repeat("value", 1200))
	g.SetXattr(g.File("file", nil), "user.large", value)
	unmount()
	fs := openFilesystem(t, path)
	ino := disktest.Lookup(t, fs, "file")
	parent, err := fs.Inode(ino)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	holders := 0
	for i := range 64 {
		n := raw[int(le.Uint32(raw[2048+8:]))*1024+i*256:][:256]
		if le.Uint32(n[0x20:])&0x200000 != 0 {
			holders++
			le.PutUint32(n[0x08:], 12345) // access time: the hash
			le.PutUint32(n[0x10:], uint32(ino))
			le.PutUint32(n[0x64:], parent.Generation)
		}
	}
	m := disktest.Image{ReaderAt: bytes.NewReader(raw), Length: int64(len(raw))}
	if fs, err = ext4.Open(m, ext4.Options{}); err != nil {
		t.Fatal(err)
	}
	list, err := fs.Xattrs(ino)
	if err != nil || holders != 1 || len(list) != 1 || !bytes.Equal(list[0].Value, value) {
		t.Errorf("%d attributes in %d inodes, %v", len(list), holders, err)
	}
}

// TestHolesOfItself makes a block map whose blocks lead to one another and to
// nothing else: endless holes out of two blocks.
func TestHolesOfItself(t *testing.T) {
	m := disktest.LoadSeed(t, "map")
	raw := make([]byte, m.Length)
	if _, err := m.ReadAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	ino := disktest.Lookup(t, openSeed(t, "map", ext4.Options{}), "holes")
	le := binary.LittleEndian
	n := raw[int(le.Uint32(raw[2048+8:]))*1024+int(ino-1)*128:][:128]
	middle, empty := le.Uint32(n[0x28+13*4:]), le.Uint32(n[0x28+12*4:])
	for i := range 256 {
		le.PutUint32(raw[int(middle)*1024+i*4:], empty)
	}
	top := le.Uint32(n[0x28+14*4:])
	for i := range 256 {
		le.PutUint32(raw[int(top)*1024+i*4:], middle)
	}
	clear(raw[int(empty)*1024:][:1024])
	le.PutUint32(n[0x6c:], 3) // i_size_high
	fs, err := ext4.Open(disktest.Image{ReaderAt: bytes.NewReader(raw), Length: m.Length}, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := fs.Open(ino)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Extents(0, f.Size(), func(disk.Extent) error { return nil }); !errors.Is(err, disk.ErrCorrupt) {
		t.Errorf("the extents of %d bytes: %v", f.Size(), err)
	}
}

// TestUnwrittenDirectory reads a directory whose block is said to be unwritten, as
// Linux does.
func TestUnwrittenDirectory(t *testing.T) {
	path := makeImage(t, 8<<20, "-t", "ext4", "-b", "1024", "-I", "256", "-O", "none,filetype,extent")
	raw := readImage(t, path)
	table := int64(binary.LittleEndian.Uint32(raw[2048+8:])) * 1024
	m := disktest.Patch(t, path, table+256+0x28+12+4, 2, func(p []byte) { p[1] |= 0x80 }) // ee_len of the root
	fs, err := ext4.Open(m, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%q", names(t, fs)); got != `["lost+found"]` {
		t.Errorf("the root has %s", got)
	}
}

// TestVerityAttribute reads the attributes of a file with the one that fs-verity
// keeps what it needs in, which no system call shows.
func TestVerityAttribute(t *testing.T) {
	path := makeImage(t, 8<<20, "-t", "ext4", "-b", "1024", "-I", "256", "-O", "none,filetype,extent,ext_attr,verity")
	for _, command := range []string{"write /dev/null file", "ea_set file user.a 1", "ea_set file user.zverity 2", "ea_set file user.zz 3"} {
		disktest.Run(t, "debugfs", "-w", "-R", command, path)
	}
	at := int64(bytes.Index(readImage(t, path), []byte("zverity")))
	m := disktest.Patch(t, path, at-15, 1, func(p []byte) { p[0] = 11 })
	fs, err := ext4.Open(m, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	list, err := fs.Xattrs(disktest.Lookup(t, fs, "file"))
	if got := fmt.Sprintf("%s", list); err != nil || got != "[{user.a 1} {user.zz 3}]" {
		t.Errorf("the attributes are %s, %v", got, err)
	}
}

func readImage(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// names are those in the root.
func names(t *testing.T, fs *ext4.Filesystem) (list []string) {
	t.Helper()
	if err := fs.ReadDir(fs.Info().Root, func(e disk.DirEntry) error {
		list = append(list, string(e.Name))
		return nil
	}); err != nil {
		t.Error(err)
	}
	return list
}

// TestLongEntry has an entry of 65,536 bytes, more than its two bytes can say: all of a
// block in which there is no name. Linux writes 65,535 for that, and once wrote 0.
func TestLongEntry(t *testing.T) {
	path := makeImage(t, 64<<20, "-t", "ext4", "-b", "65536", "-O", "^metadata_csum")
	for _, command := range []string{"mkdir dir", "mkdir dir/first", "expand_dir dir", "expand_dir dir"} {
		disktest.Run(t, "debugfs", "-w", "-R", command, path)
	}
	block, err := strconv.ParseInt(strings.TrimSpace(string(disktest.Run(t, "debugfs", "-R", "bmap dir 2", path))), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, length := range []uint16{0xffff, 0} {
		fs, err := ext4.Open(disktest.Patch(t, path, block*65536+4, 2, func(p []byte) {
			if p[0] != 0xff || p[1] != 0xff {
				t.Errorf("debugfs has made an entry of length %x", p)
			}
			binary.LittleEndian.PutUint16(p, length)
		}), ext4.Options{})
		if err != nil {
			t.Fatal(err)
		}
		dir := disktest.Lookup(t, fs, "dir")
		if n, err := fs.Inode(dir); err != nil || n.Size != 3*65536 {
			t.Fatalf("%+v, %v", n, err)
		}
		if names, err := disk.List(fs, dir); err != nil || len(names) != 1 || string(names[0].Name) != "first" {
			t.Errorf("length %d: %v, %v", length, names, err)
		}
	}
}
