package disktest

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// Lookup returns the inode number of the file at a path.
func Lookup(t testing.TB, fs disk.Filesystem, path string) uint64 {
	t.Helper()
	n, err := disk.Lookup(fs, []byte(path))
	if err != nil {
		t.Fatal(err)
	}
	return n.Ino
}

// CheckConcurrent walks one filesystem, which should hold want, from several
// goroutines at once.
func CheckConcurrent(t testing.TB, want Tree, fs disk.Filesystem) {
	t.Helper()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { CompareTrees(t, want, ReadTree(t, fs)) })
	}
	wg.Wait()
}

// CheckContract holds a filesystem that is not damaged, and each of its files,
// against what package disk promises: of [disk.Filesystem], and, where they are
// that as well, of [disk.Usage] and [disk.Locator]. The devices are those that it
// was opened on; without them it is not checked where files lie.
func CheckContract(t *testing.T, fs disk.Filesystem, devices ...disk.Sparse) {
	t.Helper()
	c := &contract{T: t, fs: fs, devices: devices, maxIno: disk.MaxIno, seen: make(map[uint64]bool), used: make([][]disk.Extent, len(devices))}
	if fs.Info().Type == "guest" { // several filesystems put together to one tree
		c.maxIno = 1 << 63
	}
	c.info()
	c.usage()
	c.file("", fs.Info().Root, disk.ModeDir)
	c.absent()
	if c.files == 0 || c.others == 0 {
		t.Errorf("%d regular files and %d others say little", c.files, c.others)
	}
}

// contract is one filesystem under test.
type contract struct {
	*testing.T
	fs      disk.Filesystem
	devices []disk.Sparse
	maxIno  uint64
	used    [][]disk.Extent // of each device; nil where that is not known
	seen    map[uint64]bool
	files   int // regular ones
	others  int
}

// maxContract is the size up to which a file is read as a whole, in bytes.
const maxContract = 64 << 20

func (c *contract) info() {
	info := c.fs.Info()
	if info.Type == "" || info.Root < 1 || info.Root >= c.maxIno || info.BlockSize < 512 || info.BlockSize&(info.BlockSize-1) != 0 || info.Size < info.BlockSize {
		c.Errorf("%+v", info)
	}
	for _, r := range info.Remarks {
		if r == "" || strings.ContainsFunc(r, func(b rune) bool { return b < ' ' || b == 0x7f }) {
			c.Errorf("remark %q", r)
		}
	}
}

// absence checks that an error is that of what is not there.
func (c *contract) absence(what string, err error) {
	c.Helper()
	var detail *disk.Error
	if !errors.Is(err, disk.ErrNotExist) || !errors.As(err, &detail) || detail.Layer == "" || detail.Structure == "" {
		c.Errorf("%s: %v", what, err)
	}
}

// absent asks for inodes that cannot be.
func (c *contract) absent() {
	for _, ino := range []uint64{0, c.maxIno - 1, c.maxIno, 1 << 63, 1<<64 - 1} {
		_, err := c.fs.Inode(ino)
		c.absence(fmt.Sprintf("inode %#x", ino), err)
		_, err = c.fs.Readlink(ino)
		c.absence(fmt.Sprintf("target of inode %#x", ino), err)
		_, err = c.fs.Xattrs(ino)
		c.absence(fmt.Sprintf("attributes of inode %#x", ino), err)
		_, err = c.fs.Open(ino)
		c.absence(fmt.Sprintf("content of inode %#x", ino), err)
		c.absence(fmt.Sprintf("entries of inode %#x", ino), c.fs.ReadDir(ino, nil))
	}
}

// usage checks what is said to be used of each device.
func (c *contract) usage() {
	u, ok := c.fs.(disk.Usage)
	if !ok {
		return
	}
	for i, d := range c.devices {
		end := int64(-1)
		err := u.Used(i, func(off, length int64) error {
			if off <= end || length <= 0 || off > d.Size() || length > d.Size()-off {
				return fmt.Errorf("%d bytes at %d, behind %d, of %d", length, off, end, d.Size())
			}
			end = off + length
			c.used[i] = append(c.used[i], disk.Extent{Offset: off, Length: length})
			return nil
		})
		if err != nil || len(c.used[i]) == 0 {
			c.Errorf("%d ranges of device %d are used: %v", len(c.used[i]), i, err)
		}
		for stop := range min(len(c.used[i]), 3) {
			calls := 0
			err := u.Used(i, func(int64, int64) error {
				if calls++; calls > stop {
					return errStop
				}
				return nil
			})
			if err != errStop || calls != stop+1 {
				c.Errorf("Used: yield stopped at call %d, but there were %d: %v", stop+1, calls, err)
			}
		}
	}
	for _, i := range []int{-1, len(c.devices), 1 << 31} {
		c.absence(fmt.Sprintf("usage of device %d", i), u.Used(i, nil))
	}
}

// isUsed reports whether a range lies within one that is used.
func (c *contract) isUsed(l disk.Location) bool {
	return slices.ContainsFunc(c.used[l.Device], func(u disk.Extent) bool {
		return l.At >= u.Offset && l.At+l.Length <= u.Offset+u.Length
	})
}

// file checks one file, and what is below it.
func (c *contract) file(path string, ino uint64, kind uint32) {
	if c.seen[ino] {
		return
	}
	c.seen[ino] = true
	n, err := c.fs.Inode(ino)
	if err != nil {
		c.Fatalf("%q: %v", path, err)
	}
	if n.Ino != ino || ino < 1 || ino >= c.maxIno || kind != 0 && n.Type() != kind || n.Size < 0 || n.Mode>>16 != 0 {
		c.Errorf("%q, inode %#x, type %#o: %+v", path, ino, kind, n)
	}
	for _, at := range []disk.Time{n.Access, n.Modify, n.Change, n.Birth} {
		if at.Nsec >= 1e9 {
			c.Errorf("%q: time %+v", path, at)
		}
	}
	c.xattrs(path, ino)
	if n.Type() == disk.ModeSymlink {
		target, err := c.fs.Readlink(ino)
		if err != nil || int64(len(target)) != n.Size || bytes.IndexByte(target, 0) >= 0 {
			c.Errorf("%q: target %q of %d bytes: %v", path, target, n.Size, err)
		}
	} else {
		_, err := c.fs.Readlink(ino)
		c.absence(path+" as a symlink", err)
	}
	if n.Type() == disk.ModeRegular {
		c.files++
		c.content(path, &n)
	} else {
		c.others++
		_, err := c.fs.Open(ino)
		c.absence(path+" as a regular file", err)
	}
	if n.Type() == disk.ModeDir {
		c.dir(path, ino)
	} else {
		c.absence(path+" as a directory", c.fs.ReadDir(ino, nil))
	}
}

func (c *contract) xattrs(path string, ino uint64) {
	list, err := c.fs.Xattrs(ino)
	if err != nil {
		c.Fatalf("%q: %v", path, err)
	}
	for i, x := range list {
		if namespace, name, _ := bytes.Cut(x.Name, []byte(".")); len(namespace) == 0 || len(name) == 0 {
			c.Errorf("%q: attribute %q", path, x.Name)
		}
		if i > 0 && bytes.Compare(list[i-1].Name, x.Name) >= 0 {
			c.Errorf("%q: attribute %q behind %q", path, x.Name, list[i-1].Name)
		}
	}
}

// dir checks a directory, and then what is in it.
func (c *contract) dir(path string, ino uint64) {
	var list []disk.DirEntry
	names := make(map[string]bool)
	err := c.fs.ReadDir(ino, func(e disk.DirEntry) error {
		name := string(e.Name)
		if name == "" || len(name) > 255 || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || names[name] {
			c.Errorf("%q: name %q", path, name)
		}
		names[name] = true
		list = append(list, disk.DirEntry{Name: []byte(name), Ino: e.Ino, Type: e.Type})
		return nil
	})
	if err != nil {
		c.Fatalf("%q: %v", path, err)
	}
	next := 0
	err = c.fs.ReadDir(ino, func(e disk.DirEntry) error {
		if next == len(list) || !bytes.Equal(e.Name, list[next].Name) || e.Ino != list[next].Ino {
			return fmt.Errorf("entry %d is another one the second time: %q", next, e.Name)
		}
		next++
		return nil
	})
	if err != nil || next != len(list) {
		c.Errorf("%q: %d entries, and then %d: %v", path, len(list), next, err)
	}
	for stop := range min(len(list), 3) {
		calls := 0
		err := c.fs.ReadDir(ino, func(disk.DirEntry) error {
			if calls++; calls > stop {
				return errStop
			}
			return nil
		})
		if err != errStop || calls != stop+1 {
			c.Errorf("%q: yield stopped at entry %d, but there were %d: %v", path, stop+1, calls, err)
		}
	}
	for _, e := range list {
		c.file(path+"/"+string(e.Name), e.Ino, e.Type)
	}
}

// content checks a regular file, see [Check], and where it lies.
func (c *contract) content(path string, n *disk.Inode) {
	f, err := c.fs.Open(n.Ino)
	if err != nil {
		c.Fatalf("%q: %v", path, err)
	}
	if f.Size() != n.Size {
		c.Errorf("%q: the content has %d bytes, the inode says %d", path, f.Size(), n.Size)
	}
	if f.Size() > maxContract {
		return
	}
	whole := make([]byte, f.Size())
	if n, err := f.ReadAt(whole, 0); n != len(whole) || err != nil && !errors.Is(err, io.EOF) {
		c.Fatalf("%q: read %d of %d bytes: %v", path, n, len(whole), err)
	}
	Check(c, f, whole)
	checkKinds(c, f, true)
	if l, ok := f.(disk.Locator); ok && len(c.devices) > 0 {
		c.locations(path, l, whole)
	}
}

// locations checks that a file lies where it says, and in what is used.
func (c *contract) locations(path string, l disk.Locator, whole []byte) {
	all, err := locate(l, 0, int64(len(whole)))
	if err != nil {
		c.Fatalf("%q: %v", path, err)
	}
	for _, l := range all {
		if l.Device < -1 || l.Device >= len(c.devices) {
			c.Errorf("%q: %+v", path, l)
		} else if l.Device >= 0 {
			c.located(path, l, whole)
		}
	}
}

// located compares a location with the device, and the device with its checksums.
func (c *contract) located(path string, l disk.Location, whole []byte) {
	d := c.devices[l.Device]
	got := make([]byte, l.Length)
	if n, err := d.ReadAt(got, l.At); n != len(got) || !bytes.Equal(got, whole[l.Offset:l.Offset+l.Length]) {
		c.Errorf("%q: other content at %+v: %v", path, l, err)
	}
	if c.used[l.Device] != nil && !c.isUsed(l) {
		c.Errorf("%q: it lies in what is not used, at %+v", path, l)
	}
	if l.Sums == nil {
		return
	}
	if size := l.Sums.Block; size < 1 || size&(size-1) != 0 || int64(len(l.Sums.CRC32C)) != (l.Length+size-1)/size*4 {
		c.Fatalf("%q: %d bytes of checksums of blocks of %d, for %d", path, len(l.Sums.CRC32C), size, l.Length)
	}
	block := make([]byte, l.Sums.Block)
	table := crc32.MakeTable(crc32.Castagnoli)
	for i := 0; i < len(l.Sums.CRC32C); i += 4 {
		if _, err := d.ReadAt(block, l.At+int64(i/4)*l.Sums.Block); err != nil && err != io.EOF {
			c.Fatalf("%q: %v", path, err)
		}
		sum := crc32.Checksum(block, table)
		if got := l.Sums.CRC32C[i:][:4]; !bytes.Equal(got, []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)}) {
			c.Errorf("%q: checksum %d of %+v is %x, should be %#x", path, i/4, l, got, sum)
		}
	}
}
