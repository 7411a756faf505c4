package ext4_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// TestPopulated compares images that mke2fs -d filled with the folder that it
// filled them from: block sizes and features that the kernel of the test's host
// does not mount.
func TestPopulated(t *testing.T) {
	disktest.RequireRoot(t)
	source := t.TempDir()
	g := &disktest.Generator{T: t, Dir: source, Rand: rand.NewChaCha8([32]byte{2}), BlockSize: 4096, ManyFiles: 1200}
	g.WriteAll()
	full := disktest.KernelTree(t, source)
	for _, p := range []struct {
		name  string
		block int
		mkfs  []string
	}{
		{"8k", 8192, nil},
		{"16k-no-csum", 16384, []string{"-O", "^metadata_csum"}},
		{"32k-ext3", 32768, []string{"-O", "^extent,^64bit,^flex_bg"}},
		{"64k", 65536, nil},
		{"64k-inline", 65536, []string{"-O", "inline_data", "-I", "4096"}},
		{"casefold", 4096, []string{"-O", "casefold", "-E", "encoding=utf8"}},
		{"quota-project", 4096, []string{"-O", "quota,project"}},
		{"orphan-file", 4096, []string{"-O", "orphan_file"}},
	} {
		t.Run(p.name, func(t *testing.T) {
			path := makeImage(t, 256<<20, append(p.mkfs, "-t", "ext4", "-b", strconv.Itoa(p.block), "-N", "8192", "-d", source)...)
			fs := openFilesystem(t, path)
			checkUsed(t, path, fs)
			disktest.CheckReadsUsed(t, path, openUncached)
			got := disktest.ReadTree(t, fs)
			delete(got, "/lost+found")
			want := disktest.WithoutPlace(full)
			if strings.Contains(p.name, "inline") {
				// With inline_data, mke2fs 1.47 cuts a file that ends in a
				// hole short.
				for path, n := range full {
					if n.Content != "" && !strings.HasSuffix(n.Data, fmt.Sprintf("-%d ", n.Size)) {
						delete(want, path)
						delete(got, path)
					}
				}
			}
			disktest.CompareTrees(t, want, disktest.WithoutPlace(got))
		})
	}
}

// TestHuge opens a sparse disk of 16 TiB, and counts what that reads.
func TestHuge(t *testing.T) {
	path := makeImage(t, 16<<40-64<<10, "-t", "ext4", "-b", "4096", "-N", "1000000", "-O", "^has_journal,^resize_inode", "-E", "lazy_itable_init=1,packed_meta_blocks=1", "-d", huge(t))
	counted := &disktest.Counted{Sparse: disktest.OpenImage(t, path)}
	fs, err := ext4.Open(counted, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	if err := disktest.WalkLeniently(fs, func(string, disktest.Node) { names++ }); err != nil {
		t.Fatal(err)
	}
	if names != 12 { // lost+found, and what huge makes
		t.Errorf("%d names", names)
	}
	if counted.Bytes.Load() > 1<<20 {
		t.Errorf("%d bytes read for %d small files", counted.Bytes.Load(), names)
	}
	start, used := time.Now(), int64(0)
	for _, r := range disktest.UsedRanges(t, fs) {
		used += r.Length
	}
	t.Logf("%d bytes are in use, found in %v, with %d bytes read", used, time.Since(start), counted.Bytes.Load())
	if used == 0 || used > 4<<30 || counted.Bytes.Load() > 64<<20 {
		t.Errorf("%d bytes are in use, %d bytes were read", used, counted.Bytes.Load())
	}
}

func huge(t *testing.T) string {
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/d", 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := os.WriteFile(fmt.Sprintf("%s/d/%d", dir, i), []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestRefusals checks that what is not supported is refused by its name, and
// with a way out.
func TestRefusals(t *testing.T) {
	for _, r := range []struct {
		name   string
		damage func(sb []byte)
		want   error
		text   string
	}{
		{"compression", setIncompat(0x1), disk.ErrUnsupported, "compression"},
		{"journal_dev", setIncompat(0x8), disk.ErrUnsupported, "journal_dev"},
		{"dirdata", setIncompat(0x1000), disk.ErrUnsupported, "dirdata"},
		{"unknown incompat", setIncompat(0x80000000), disk.ErrUnsupported, "incompat bit 0x80000000"},
		{"unknown ro_compat", func(sb []byte) { sb[0x67] |= 0x40 }, disk.ErrUnsupported, "ro_compat bit 0x40000000"},
		{"has_snapshot", func(sb []byte) { sb[0x64] |= 0x80 }, disk.ErrUnsupported, "has_snapshot"},
		{"external journal", func(sb []byte) { sb[0x60] |= 4; clear(sb[0xe0:0xe4]); sb[0xe4] = 7 }, disk.ErrUnsupported, "external journal"},
		{"no journal", func(sb []byte) { sb[0x60] |= 4; sb[0x5c] &^= 4 }, disk.ErrCorrupt, "there is no journal"},
		{"revision", func(sb []byte) { sb[0x4c] = 9 }, disk.ErrUnsupported, "revision 9"},
		{"checksum type", func(sb []byte) { sb[0x175] = 2 }, disk.ErrUnsupported, "checksum type 2"},
		{"too large", func(sb []byte) { sb[0x06] = 0xff }, disk.ErrCorrupt, "the disk ends"},
	} {
		t.Run(r.name, func(t *testing.T) {
			path := makeImage(t, 4<<20, "-t", "ext4")
			damaged := disktest.Patch(t, path, 1024, 1024, func(sb []byte) {
				r.damage(sb)
				sealSuperblock(sb)
			})
			_, err := ext4.Open(damaged, ext4.Options{})
			var detail *disk.Error
			if !errors.Is(err, r.want) || !errors.As(err, &detail) || !strings.Contains(detail.Detail, r.text) {
				t.Errorf("got %v, want %v with %q", err, r.want, r.text)
			}
		})
	}
}

func setIncompat(bit uint32) func([]byte) {
	return func(sb []byte) {
		for i := range 4 {
			sb[0x60+i] |= byte(bit >> (8 * i))
		}
	}
}

// TestEncrypted lists an encrypted folder as the kernel does without the key,
// and has its content refused by name.
func TestEncrypted(t *testing.T) {
	for name, c := range map[string]struct {
		files    int
		features string
		tune     []string // for debugfs
	}{
		"no hashes":               {3, "encrypt,^dir_index", nil},
		"one block":               {3, "encrypt", nil},
		"a hash tree":             {200, "encrypt", nil},
		"no seed":                 {200, "encrypt", []string{"hash_seed 00000000-0000-0000-0000-000000000000"}},
		"unsigned":                {200, "encrypt", []string{"flags 2"}},
		"TEA":                     {200, "encrypt", []string{"def_hash_version tea"}},
		"unsigned TEA, one block": {3, "encrypt", []string{"flags 2", "def_hash_version tea"}},
		"legacy":                  {200, "encrypt", []string{"def_hash_version legacy"}},
		"unsigned legacy":         {3, "encrypt", []string{"flags 2", "def_hash_version legacy"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := makeImage(t, 32<<20, "-t", "ext4", "-b", "4096", "-O", c.features)
			for _, value := range c.tune {
				disktest.Run(t, "debugfs", "-w", "-R", "set_super_value "+value, path)
			}
			checkEncrypted(t, path, c.files)
		})
	}
}

func checkEncrypted(t *testing.T, path string, files int) {
	t.Helper()
	dir, unmount := disktest.Mount(t, path, "ext4", "rw")
	secret := dir + "/secret"
	if err := os.Mkdir(secret, 0o755); err != nil {
		t.Fatal(err)
	}
	key := addEncryptionKey(t, dir)
	setEncryptionPolicy(t, secret, key)
	for _, name := range []string{"a", "some longer name", strings.Repeat("long", 40), strings.Repeat("l", 255)} {
		if err := os.WriteFile(secret+"/"+name, []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range files {
		if err := os.WriteFile(fmt.Sprintf("%s/%d%s", secret, i, strings.Repeat("m", i%60)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("target", secret+"/link"); err != nil {
		t.Fatal(err)
	}
	unmount()

	dir, unmount = disktest.Mount(t, path, "ext4", "ro,noatime")
	list, err := os.ReadDir(dir + "/secret")
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]bool)
	for _, e := range list {
		want[e.Name()] = true
	}
	unmount()

	fs := openFilesystem(t, path)
	got := make(map[string]bool)
	walkErr := disktest.WalkLeniently(fs, func(path string, n disktest.Node) {
		if name, inside := strings.CutPrefix(path, "/secret/"); inside {
			got[name] = true
			if n.Content != "" || n.Target != "" {
				t.Errorf("%q has content", path)
			}
		}
	})
	if len(want) != 5+files || fmt.Sprint(want) != fmt.Sprint(got) {
		t.Errorf("the kernel lists %v, we list %v", want, got)
	}
	var detail *disk.Error
	if !errors.Is(walkErr, disk.ErrUnsupported) || !errors.As(walkErr, &detail) || !strings.Contains(detail.Detail, "encrypt") {
		t.Errorf("the content gives %v", walkErr)
	}
}
