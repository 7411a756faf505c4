package sandbox

import (
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/disk/xfs"
	"github.com/drydock-vm/drydock/internal/benchdisk"
)

// inProcess are the readers without a worker around them.
var inProcess = map[string]func(disk.Sparse) (disk.Filesystem, error){
	"ext4": func(d disk.Sparse) (disk.Filesystem, error) { return ext4.Open(d, ext4.Options{}) },
	"xfs":  func(d disk.Sparse) (disk.Filesystem, error) { return xfs.Open(d, xfs.Options{}) },
	"btrfs": func(d disk.Sparse) (disk.Filesystem, error) {
		return btrfs.Open([]disk.Sparse{d}, btrfs.Options{})
	},
}

// TestCompareWorker reads everything of a filesystem as tar does, in process and
// through the worker, in two orders: file by file as the disk lists them, and each
// directory sorted by name.
func TestCompareWorker(t *testing.T) {
	benchdisk.Wanted(t)
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		for _, order := range []string{"as listed", "sorted"} {
			t.Run(fstype+"/"+order, func(t *testing.T) {
				path := benchdisk.System(t, fstype)
				benchdisk.Compare(t, 5, nil,
					benchdisk.Contender{Name: "through the worker", Run: func() error {
						r := start(t, path, DiskSpec{Format: Raw})
						defer r.Close()
						fs, err := r.Filesystem(t.Context(), filepath.Base(path))
						if err != nil {
							return err
						}
						return readTree(fs, order == "sorted")
					}},
					benchdisk.Contender{Name: "in process", Run: func() error {
						f := openFile(t, path)
						size, err := readableSize(f)
						if err != nil {
							return err
						}
						image, err := raw.Open(f, size)
						if err != nil {
							return err
						}
						fs, err := inProcess[fstype](image)
						if err != nil {
							return err
						}
						return readTree(fs, order == "sorted")
					}})
			})
		}
	}
}

// readTree reads all attributes and all content.
func readTree(fs disk.Filesystem, sorted bool) error {
	r := &treeReader{fs: fs, sorted: sorted, buf: make([]byte, 1<<20)}
	return r.dir(fs.Info().Root)
}

type treeReader struct {
	fs     disk.Filesystem
	sorted bool
	buf    []byte
}

func (r *treeReader) dir(ino uint64) error {
	type entry struct {
		name string
		ino  uint64
	}
	var list []entry
	if err := r.fs.ReadDir(ino, func(e disk.DirEntry) error {
		list = append(list, entry{string(e.Name), e.Ino})
		return nil
	}); err != nil {
		return err
	}
	if r.sorted {
		slices.SortFunc(list, func(x, y entry) int { return strings.Compare(x.name, y.name) })
	}
	for _, e := range list {
		if err := r.file(e.ino); err != nil {
			return err
		}
	}
	return nil
}

func (r *treeReader) file(ino uint64) error {
	n, err := r.fs.Inode(ino)
	if err != nil {
		return err
	}
	if _, err := r.fs.Xattrs(ino); err != nil {
		return err
	}
	switch n.Type() {
	case disk.ModeDir:
		return r.dir(ino)
	case disk.ModeSymlink:
		_, err = r.fs.Readlink(ino)
	case disk.ModeRegular:
		err = r.content(ino)
	}
	return err
}

// content reads the parts of a file that are not holes.
func (r *treeReader) content(ino uint64) error {
	f, err := r.fs.Open(ino)
	if err != nil {
		return err
	}
	return f.Extents(0, f.Size(), func(e disk.Extent) error {
		if e.Kind != disk.ExtentData {
			return nil
		}
		for end := e.Offset + e.Length; e.Offset < end; {
			got, err := f.ReadAt(r.buf[:min(int64(len(r.buf)), end-e.Offset)], e.Offset)
			if err != nil && err != io.EOF {
				return err
			}
			e.Offset += int64(got)
		}
		return nil
	})
}
