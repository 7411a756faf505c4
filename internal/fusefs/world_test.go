package fusefs_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/fusefs"
)

// helperEnv has this test program be a server at the folder that it names, until
// its input ends; see TestKilled and TestOrdinaryUser.
const helperEnv = "DRYDOCK_TEST_FUSE_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		os.Exit(serve(dir))
	}
	os.Exit(m.Run())
}

func serve(dir string) int {
	m, err := fusefs.Mount(dir, newMemFS(), fusefs.Options{})
	if err != nil {
		println(err.Error())
		return 1
	}
	os.Stdout.WriteString("mounted\n")
	io.Copy(io.Discard, os.Stdin)
	f, err := os.Open(filepath.Join(dir, "one"))
	if err != nil {
		println(err.Error())
		return 1
	}
	if err := m.Unmount(); !errors.Is(err, unix.EBUSY) {
		println("unmount with an open file:", err.Error())
		return 1
	}
	f.Close()
	if err := m.Unmount(); err != nil {
		println(err.Error())
		return 1
	}
	return 0
}

// mounted is a mount under test.
type mounted struct {
	*fusefs.Mounted
	dir string

	mu      sync.Mutex
	reports map[uint64][]error
}

func mount(t testing.TB, fsys disk.Filesystem, opts fusefs.Options) *mounted {
	t.Helper()
	m := &mounted{dir: t.TempDir(), reports: make(map[uint64][]error)}
	opts.Report = func(ino uint64, err error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.reports[ino] = append(m.reports[ino], err)
	}
	var err error
	if m.Mounted, err = fusefs.Mount(m.dir, fsys, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			if !errors.Is(err, unix.EINVAL) { // not mounted any more
				t.Errorf("unmount: %v", err)
			}
			_ = m.Detach()
		}
	})
	return m
}

// memFile is a file of a memFS: what is set decides its type.
type memFile struct {
	disk.Inode
	content disk.Sparse
	entries []disk.DirEntry
	target  string
	xattrs  []disk.Xattr

	inodeErr, readErr, dirErr, xattrErr, openErr error
}

// memFS is a filesystem in memory, which counts what it is asked. Its root is
// inode 2, as ext4's is, and there is a file with the number of FUSE's root.
type memFS struct {
	files          map[uint64]*memFile
	listed, opened atomic.Int64
}

func newMemFS() *memFS {
	fs := &memFS{files: make(map[uint64]*memFile)}
	fs.files[2] = &memFile{Inode: disk.Inode{Ino: 2, Mode: disk.ModeDir | 0o755, Links: 2}}
	fs.add(1, "one", &memFile{content: newContent("the first inode")})
	return fs
}

// add adds a file to the root.
func (fs *memFS) add(ino uint64, name string, f *memFile) {
	f.Ino, f.Links = ino, 1
	f.Mode |= 0o644
	if f.Type() == 0 {
		switch {
		case f.target != "":
			f.Mode |= disk.ModeSymlink
		case f.entries != nil || f.dirErr != nil:
			f.Mode |= disk.ModeDir | 0o111
		default:
			f.Mode |= disk.ModeRegular
		}
	}
	if f.content != nil {
		f.Size = f.content.Size()
	}
	fs.files[ino] = f
	fs.files[2].entries = append(fs.files[2].entries, disk.DirEntry{Name: []byte(name), Ino: ino, Type: f.Type()})
}

func (fs *memFS) Info() disk.FilesystemInfo {
	return disk.FilesystemInfo{Type: "mem", Root: 2, BlockSize: 4096, Size: 1 << 30, InodeCount: 1000}
}

func (fs *memFS) file(ino uint64) (*memFile, error) {
	if f := fs.files[ino]; f != nil {
		return f, nil
	}
	return nil, disk.ErrNotExist
}

func (fs *memFS) Inode(ino uint64) (disk.Inode, error) {
	f, err := fs.file(ino)
	if err != nil {
		return disk.Inode{}, err
	}
	return f.Inode, f.inodeErr
}

func (fs *memFS) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	fs.listed.Add(1)
	f, err := fs.file(ino)
	if err != nil {
		return err
	}
	for _, e := range f.entries {
		if err := yield(e); err != nil {
			return err
		}
	}
	return f.dirErr
}

func (fs *memFS) Readlink(ino uint64) ([]byte, error) {
	f, err := fs.file(ino)
	if err != nil {
		return nil, err
	}
	return []byte(f.target), f.readErr
}

func (fs *memFS) Xattrs(ino uint64) ([]disk.Xattr, error) {
	f, err := fs.file(ino)
	if err != nil {
		return nil, err
	}
	return f.xattrs, f.xattrErr
}

func (fs *memFS) Open(ino uint64) (disk.Sparse, error) {
	fs.opened.Add(1)
	f, err := fs.file(ino)
	if err != nil {
		return nil, err
	}
	return f.content, f.openErr
}

// content is the content of a memFile.
type content struct {
	*bytes.Reader
	err   error // of every read at or behind errAt
	errAt int64
	gate  chan struct{} // which reads take one from and then wait for, unless nil
}

func newContent(s string) *content { return &content{Reader: bytes.NewReader([]byte(s))} }

func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if c.gate != nil {
		<-c.gate
		<-c.gate
	}
	if c.err != nil && off+int64(len(p)) > c.errAt {
		return 0, c.err
	}
	return c.Reader.ReadAt(p, off)
}

func (c *content) Extents(off, length int64, yield func(disk.Extent) error) error {
	if c.err != nil {
		return c.err
	}
	if off+length > c.Size() {
		return io.ErrUnexpectedEOF
	}
	return yield(disk.Extent{Offset: off, Length: length})
}
