package fusefs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/internal/fusefs"
	"github.com/drydock-vm/drydock/internal/testmount"
)

func openImage(t *testing.T, path string) disk.Filesystem {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	d, err := raw.Open(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := ext4.Open(d, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return fsys
}

// TestLikeKernel compares all that programs can see of a tree with what they see
// when the kernel mounts the same image.
func TestLikeKernel(t *testing.T) {
	image := makeImage(t, func(dir string) { populate(t, dir) })
	dir, unmount := testmount.Image(t, image, "ro,noatime")
	want := look(t, dir)
	unmount()
	for name, opts := range map[string]fusefs.Options{"default": {}, "others": {AllowOther: true, NoExec: true, FSName: "a,b c"}} {
		t.Run(name, func(t *testing.T) {
			m := mount(t, openImage(t, image), opts)
			for range 2 { // the second time from what the kernel keeps
				if diff := cmp.Diff(want, look(t, m.dir)); diff != "" {
					t.Errorf("- kernel, + FUSE:\n%s", diff)
				}
			}
			if len(m.reports) != 0 {
				t.Errorf("reports: %v", m.reports)
			}
		})
	}
}

func TestMountOptions(t *testing.T) {
	m := mount(t, newMemFS(), fusefs.Options{FSName: "a,b c", NoExec: true})
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var line string
	for l := range strings.Lines(string(mounts)) {
		if strings.Contains(l, " "+m.dir+" ") {
			line = l
		}
	}
	for _, want := range []string{`a,b\040c `, " fuse.drydock ro,nosuid,nodev,noexec,", "default_permissions", "max_read=1048576"} {
		if !strings.Contains(line, want) {
			t.Errorf("the mount is %q, want %q in it", line, want)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(m.dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks != 1<<18 || st.Bsize != 4096 || st.Bfree != 0 || st.Files != 1000 || st.Namelen != 255 {
		t.Errorf("statfs says %+v", st)
	}
	for name, err := range map[string]error{
		"create": os.WriteFile(filepath.Join(m.dir, "new"), nil, 0o600),
		"write":  os.WriteFile(filepath.Join(m.dir, "one"), []byte("x"), 0o600),
		"remove": os.Remove(filepath.Join(m.dir, "one")),
		"chmod":  os.Chmod(filepath.Join(m.dir, "one"), 0o777),
		"xattr":  unix.Setxattr(filepath.Join(m.dir, "one"), "user.x", nil, 0),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var root unix.Stat_t
	if err := unix.Stat(m.dir, &root); err != nil {
		t.Fatal(err)
	}
	ahead, err := os.ReadFile(fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(root.Dev), unix.Minor(root.Dev)))
	if err != nil || string(ahead) != "1024\n" {
		t.Errorf("the kernel reads %q KiB ahead, %v", ahead, err)
	}
	// The file whose number FUSE's root has is not the root.
	if got, err := os.ReadFile(filepath.Join(m.dir, "one")); err != nil || string(got) != "the first inode" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestManyEntries lists a large directory in several ways. It is read once.
func TestManyEntries(t *testing.T) {
	const many = 100_000
	fsys := newMemFS()
	dir := &memFile{}
	want := make(map[string]bool)
	for i := range many {
		name := fmt.Sprintf("entry %d", i)
		fsys.files[uint64(1000+i)] = &memFile{Inode: disk.Inode{Ino: uint64(1000 + i), Mode: disk.ModeRegular | 0o644, Links: 1}}
		dir.entries = append(dir.entries, disk.DirEntry{Name: []byte(name), Ino: uint64(1000 + i), Type: disk.ModeRegular})
		want[name] = true
	}
	fsys.add(3, "dir", dir)
	m := mount(t, fsys, fusefs.Options{})
	path := filepath.Join(m.dir, "dir")
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		delete(want, e.Name())
	}
	if len(entries) != many || len(want) != 0 {
		t.Errorf("%d entries, %d are missing", len(entries), len(want))
	}
	var st unix.Stat_t
	for i := 0; i < many; i += 500 {
		if err := unix.Lstat(filepath.Join(path, fmt.Sprintf("entry %d", i)), &st); err != nil || st.Ino != uint64(1000+i) {
			t.Fatalf("entry %d is inode %d, %v", i, st.Ino, err)
		}
		if err := unix.Lstat(filepath.Join(path, fmt.Sprintf("no %d", i)), &st); err != unix.ENOENT {
			t.Fatalf("a name that is not there: %v", err)
		}
	}
	if n := fsys.listed.Load(); n != 2 { // the root, and this one
		t.Errorf("directories are read %d times", n)
	}
	checkSeek(t, path)
}

// checkSeek goes back to a place in the middle of an open directory.
func checkSeek(t *testing.T, path string) {
	fd, err := unix.Open(path, unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 4096)
	next := func() []string {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		return names
	}
	for range 50 {
		next()
	}
	place, err := unix.Seek(fd, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	want := next()
	for range 20 {
		next()
	}
	if _, err := unix.Seek(fd, place, 0); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, next()); diff != "" || len(want) == 0 {
		t.Errorf("after going back:\n%s", diff)
	}
}

// TestFailures reads what cannot be read. Each inode is reported once.
func TestFailures(t *testing.T) {
	fsys := newMemFS()
	broken := errors.New("the disk is gone")
	damaged := newContent(strings.Repeat("x", 1<<20))
	damaged.err, damaged.errAt = disk.ErrCorrupt, 512<<10
	fsys.add(10, "inode", &memFile{inodeErr: disk.ErrCorrupt})
	fsys.add(11, "open", &memFile{openErr: disk.ErrUnsupported, Inode: disk.Inode{Size: 10}})
	fsys.add(12, "read", &memFile{content: damaged})
	fsys.add(13, "dir", &memFile{dirErr: broken, entries: []disk.DirEntry{{Name: []byte("there"), Ino: 1, Type: disk.ModeRegular}, {Name: []byte("self"), Ino: 13, Type: disk.ModeDir}}})
	fsys.add(14, "link", &memFile{target: "x", readErr: disk.ErrLimit})
	fsys.add(15, "xattr", &memFile{xattrErr: disk.ErrCorrupt})
	fsys.add(17, "mode", &memFile{Inode: disk.Inode{Mode: 0o170000}})
	fsys.files[2].entries = append(fsys.files[2].entries, disk.DirEntry{Name: []byte("gone"), Ino: 99}, disk.DirEntry{Name: []byte("loop"), Ino: 2, Type: disk.ModeDir})
	m := mount(t, fsys, fusefs.Options{})
	at := func(name string) string { return filepath.Join(m.dir, name) }

	root, err := os.Open(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := root.Readdirnames(0) // without a look at each
	if len(entries) != 10 || err != nil {
		t.Errorf("%q, %v", entries, err)
	}
	root.Close()
	for range 2 {
		_, inode := os.Lstat(at("inode"))
		_, open := os.ReadFile(at("open"))
		_, dir := os.ReadDir(at("dir"))
		_, link := os.Readlink(at("link"))
		_, list := unix.Listxattr(at("xattr"), nil)
		_, get := unix.Getxattr(at("xattr"), "user.x", nil)
		_, mode := os.Lstat(at("mode"))
		_, gone := os.Lstat(at("gone"))
		_, loop := os.Lstat(at("loop"))
		read, readErr := os.ReadFile(at("read"))
		for _, c := range []struct {
			name      string
			got, want error
		}{
			{"inode", inode, unix.EUCLEAN}, {"open", open, unix.EOPNOTSUPP}, {"dir", dir, unix.EIO}, {"link", link, unix.EIO},
			{"list", list, unix.EUCLEAN}, {"get", get, unix.EUCLEAN}, {"mode", mode, unix.EIO}, {"gone", gone, unix.ENOENT},
			{"loop", loop, unix.EIO}, {"read", readErr, unix.EUCLEAN},
		} {
			// The kernel has its own error for a page that it could not read.
			if !errors.Is(c.got, c.want) && !(c.name == "read" && errors.Is(c.got, unix.EIO)) {
				t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
			}
		}
		if len(read) < 256<<10 || strings.Trim(string(read), "x") != "" {
			t.Errorf("%d bytes before the damage", len(read))
		}
	}
	if _, err := os.Lstat(at("dir/there")); err != nil {
		t.Errorf("what is before the damage of a directory: %v", err)
	}
	if _, err := os.Lstat(at("dir/self")); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a directory in itself: %v", err)
	}
	if _, err := os.Lstat(at("dir/other")); !errors.Is(err, unix.EIO) {
		t.Errorf("what may be behind the damage of a directory: %v", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, ino := range []uint64{10, 11, 12, 13, 14, 15, 99} {
		if len(m.reports[ino]) != 1 {
			t.Errorf("inode %d: reports %v", ino, m.reports[ino])
		}
		delete(m.reports, ino)
	}
	if len(m.reports) != 0 {
		t.Errorf("reports: %v", m.reports)
	}
}

// TestXattrs has attributes that the kernel does not let a filesystem have.
func TestXattrs(t *testing.T) {
	fsys := newMemFS()
	large := bytes.Repeat([]byte("v"), 60<<10)
	fsys.add(10, "f", &memFile{xattrs: []disk.Xattr{{Name: []byte("user.a"), Value: large}, {Name: []byte("user.\x00")}, {}, {Name: []byte("user.b"), Value: large}}})
	path := filepath.Join(mount(t, fsys, fusefs.Options{}).dir, "f")
	got, err := xattrsOf(path)
	if diff := cmp.Diff(map[string]string{"user.a": string(large), "user.b": string(large)}, got); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
	if _, err := unix.Getxattr(path, "user.c", nil); err != unix.ENODATA {
		t.Errorf("an attribute that is not there: %v", err)
	}
	if _, err := unix.Listxattr(path, make([]byte, 5)); err != unix.ERANGE {
		t.Errorf("too small a buffer: %v", err)
	}
}

// TestUnmount unmounts while a file is open.
func TestUnmount(t *testing.T) {
	for _, lazy := range []bool{false, true} {
		m := mount(t, newMemFS(), fusefs.Options{})
		f, err := os.Open(filepath.Join(m.dir, "one"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := m.Unmount(); !errors.Is(err, unix.EBUSY) {
			t.Fatalf("unmount with an open file: %v", err)
		}
		if lazy {
			if err := m.Detach(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(filepath.Join(m.dir, "one")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the tree is still there: %v", err)
			}
		}
		buf := make([]byte, 15)
		if _, err := f.ReadAt(buf, 0); err != nil || string(buf) != "the first inode" {
			t.Errorf("%q, %v", buf, err)
		}
		f.Close()
		if !lazy {
			if err := m.Unmount(); err != nil {
				t.Fatal(err)
			}
		}
		ended := make(chan bool)
		go func() { m.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("it does not end")
		}
	}
}

// TestUnmountWaits unmounts while the disk is read.
func TestUnmountWaits(t *testing.T) {
	fsys := newMemFS()
	slow := newContent("slow")
	slow.gate = make(chan struct{})
	fsys.add(10, "slow", &memFile{content: slow})
	m := mount(t, fsys, fusefs.Options{})
	read := make(chan error)
	go func() {
		b, err := os.ReadFile(filepath.Join(m.dir, "slow"))
		if err == nil && string(b) != "slow" {
			err = fmt.Errorf("content %q", b)
		}
		read <- err
	}()
	slow.gate <- struct{}{} // it has begun
	if err := m.Unmount(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("unmount while a file is read: %v", err)
	}
	close(slow.gate)
	if err := <-read; err != nil {
		t.Error(err)
	}
}

func TestMountRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, file + "/no", filepath.Dir(file) + "/no"} {
		if _, err := fusefs.Mount(path, newMemFS(), fusefs.Options{}); err == nil {
			t.Errorf("%s: mounted", path)
		}
	}
}
