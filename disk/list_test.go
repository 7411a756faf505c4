package disk_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// names is a filesystem that can only list one directory.
type names struct {
	disk.Filesystem
	list []string
	err  error
}

func (n names) Info() disk.FilesystemInfo { return disk.FilesystemInfo{Type: "test"} }

func (n names) ReadDir(_ uint64, yield func(disk.DirEntry) error) error {
	buf := make([]byte, 0, 16) // used again, as readers may
	for i, name := range n.list {
		buf = append(buf[:0], name...)
		if err := yield(disk.DirEntry{Name: buf, Ino: uint64(i)}); err != nil {
			return err
		}
	}
	return n.err
}

func TestList(t *testing.T) {
	many := make([]string, disk.MaxDirEntries+1)
	for i := range many {
		many[i] = fmt.Sprintf("%08d", i)
	}
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		fsys names
		want []string
		err  error
	}{
		"empty":    {names{}, nil, nil},
		"sorted":   {names{list: []string{"b", "a\xff", "a", "B"}}, []string{"B", "a", "a\xff", "b"}, nil},
		"twice":    {names{list: []string{"b", "a", "b"}}, []string{"a", "b"}, disk.ErrCorrupt},
		"too many": {names{list: many}, many[:disk.MaxDirEntries], disk.ErrLimit},
		"broken":   {names{list: []string{"b", "a"}, err: broken}, []string{"a", "b"}, broken},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := disk.List(c.fsys, 2)
			if !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			if !slices.EqualFunc(got, c.want, func(e disk.DirEntry, n string) bool { return string(e.Name) == n }) {
				t.Errorf("%d entries, want %d", len(got), len(c.want))
			}
			if name == "twice" && got[1].Ino != 0 {
				t.Error("the second of two was kept")
			}
		})
	}
}
