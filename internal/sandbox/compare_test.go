package sandbox

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
)

// order is a way to go through a directory.
type order func(filesystem disk.Filesystem, ino uint64, yield func(disk.DirEntry) error) error

// asListed looks at each file while the directory is being listed.
func asListed(filesystem disk.Filesystem, ino uint64, yield func(disk.DirEntry) error) error {
	return filesystem.ReadDir(ino, yield)
}

// byName lists a directory first, and looks at its files in the order of their
// names.
func byName(filesystem disk.Filesystem, ino uint64, yield func(disk.DirEntry) error) error {
	var list []disk.DirEntry
	err := filesystem.ReadDir(ino, func(e disk.DirEntry) error {
		e.Name = bytes.Clone(e.Name)
		list = append(list, e)
		return nil
	})
	slices.SortFunc(list, func(a, b disk.DirEntry) int { return bytes.Compare(a.Name, b.Name) })
	for _, e := range list {
		if err == nil {
			err = yield(e)
		}
	}
	return err
}

// compareTree compares what the worker reads with the folder it came from.
func compareTree(t *testing.T, filesystem disk.Filesystem, root string, o order) {
	t.Helper()
	links := make(map[uint64][]string) // by inode of the guest
	var hostLinks [][]string
	seen := 0
	var walk func(ino uint64, path string)
	walk = func(ino uint64, path string) {
		var names []string
		err := o(filesystem, ino, func(e disk.DirEntry) error {
			name := string(e.Name)
			if path == "" && name == "lost+found" {
				return nil
			}
			names = append(names, name)
			seen++
			child := filepath.Join(path, name)
			links[e.Ino] = append(links[e.Ino], child)
			if compareFile(t, filesystem, e, filepath.Join(root, child)) {
				walk(e.Ino, child)
			}
			return nil
		})
		if err != nil {
			t.Fatalf("list %q: %v", path, err)
		}
		want, err := os.ReadDir(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		if !slices.EqualFunc(names, want, func(n string, e fs.DirEntry) bool { return n == e.Name() }) {
			t.Errorf("%q has %q, want %v", path, names, want)
		}
	}
	walk(filesystem.Info().Root, "")
	for _, names := range links {
		if len(names) > 1 {
			slices.Sort(names)
			hostLinks = append(hostLinks, names)
		}
	}
	if fmt.Sprint(hostLinks) != "[[etc/also etc/passwd]]" {
		t.Errorf("hard links: %v", hostLinks)
	}
	if seen < 3000 {
		t.Errorf("only %d files", seen)
	}
}

// compareFile compares one file, and reports whether it is a folder.
func compareFile(t *testing.T, filesystem disk.Filesystem, e disk.DirEntry, path string) bool {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	n, err := filesystem.Inode(e.Ino)
	if err != nil {
		t.Fatalf("%q: %v", path, err)
	}
	if n.Mode != st.Mode || n.UID != st.Uid || n.GID != st.Gid || n.Modify.Sec != st.Mtim.Sec || e.Type != n.Type() {
		t.Errorf("%q: %+v, want %+v", path, n, st)
	}
	xattrs, err := filesystem.Xattrs(e.Ino)
	if err != nil {
		t.Fatalf("%q: %v", path, err)
	}
	for _, x := range xattrs {
		b := make([]byte, 1<<16)
		size, err := unix.Lgetxattr(path, string(x.Name), b)
		if err != nil || !bytes.Equal(b[:size], x.Value) {
			t.Errorf("%q: attribute %q is %d bytes, want %d, %v", path, x.Name, len(x.Value), size, err)
		}
	}
	if filepath.Base(path) == "passwd" && len(xattrs) != 2 {
		t.Errorf("%q has %d attributes", path, len(xattrs))
	}
	switch n.Type() {
	case disk.ModeDir:
		return true
	case disk.ModeSymlink:
		want, _ := os.Readlink(path)
		if got, err := filesystem.Readlink(e.Ino); err != nil || string(got) != want {
			t.Errorf("%q leads to %q, want %q, %v", path, got, want, err)
		}
	case disk.ModeChar:
		if n.Rdev != (disk.Device{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}) {
			t.Errorf("%q is %v", path, n.Rdev)
		}
	case disk.ModeRegular:
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := filesystem.Open(e.Ino)
		if err != nil {
			t.Fatalf("%q: %v", path, err)
		}
		compareContent(t, path, f, want)
	}
	return false
}

// compareContent reads content in several ways.
func compareContent(t *testing.T, name string, f disk.Sparse, want []byte) {
	t.Helper()
	if f.Size() != int64(len(want)) {
		t.Errorf("%q has %d bytes, want %d", name, f.Size(), len(want))
		return
	}
	for _, chunk := range []int{len(want) + 1, 1 << 20, 30000} {
		got := make([]byte, 0, len(want))
		buf := make([]byte, min(chunk, len(want)+1))
		for {
			n, err := f.ReadAt(buf, int64(len(got)))
			got = append(got, buf[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil || n != len(buf) {
				t.Fatalf("%q: read %d at %d: %d, %v", name, chunk, len(got), n, err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%q differs when it is read %d bytes at a time", name, chunk)
		}
	}
	for _, off := range []int{len(want) / 2, len(want) / 3, len(want) - 1} {
		if off < 0 {
			continue
		}
		b := make([]byte, min(1000, len(want)-off))
		if _, err := f.ReadAt(b, int64(off)); (err != nil && err != io.EOF) || !bytes.Equal(b, want[off:off+len(b)]) {
			t.Errorf("%q differs at %d: %v", name, off, err)
		}
	}
	if _, err := f.ReadAt(make([]byte, 1), f.Size()); err != io.EOF {
		t.Errorf("%q: a read at the end gives %v", name, err)
	}
	var end, data int64
	err := f.Extents(0, f.Size(), func(e disk.Extent) error {
		if e.Offset != end || e.Length <= 0 {
			t.Errorf("%q: an extent at %d, want %d", name, e.Offset, end)
		}
		end += e.Length
		if e.Kind == disk.ExtentData {
			data += e.Length
		} else if part := want[e.Offset:end]; !bytes.Equal(part, make([]byte, len(part))) {
			t.Errorf("%q: there is data in the hole at %d", name, e.Offset)
		}
		return nil
	})
	if err != nil || end != f.Size() {
		t.Errorf("%q: extents end at %d, %v", name, end, err)
	}
	if base := filepath.Base(name); (base == "sparse" && data > 1<<20) || (base == "small hole" && data > 8192) {
		t.Errorf("%q has %d bytes of data, its holes are lost", name, data)
	}
}

// compareVolume compares a volume with the part of the disk that it is.
func compareVolume(t *testing.T, d *Reader, v Volume) {
	t.Helper()
	volume, err := d.Volume(t.Context(), v.Name)
	if err != nil || volume.Size() != v.Size {
		t.Fatalf("%v, %v", volume, err)
	}
	want, got := make([]byte, v.Size), make([]byte, v.Size)
	if _, err := d.Disks()[0].ReadAt(want, v.Offset); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if _, err := volume.ReadAt(got, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("a volume is not the part of the disk that it should be")
	}
}
