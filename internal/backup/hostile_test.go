package backup_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
)

// hostile is a filesystem made of lies.
type hostile struct {
	root    uint64
	inodes  map[uint64]disk.Inode
	entries map[uint64][]disk.DirEntry
	files   map[uint64]disk.Sparse
}

func (h hostile) Info() disk.FilesystemInfo { return disk.FilesystemInfo{Type: "ext4", Root: h.root} }

func (h hostile) Inode(ino uint64) (disk.Inode, error) { return h.inodes[ino], nil }

func (h hostile) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	for _, e := range h.entries[ino] {
		if err := yield(e); err != nil {
			return err
		}
	}
	return nil
}

func (h hostile) Readlink(uint64) ([]byte, error)      { return []byte("x"), nil }
func (h hostile) Xattrs(uint64) ([]disk.Xattr, error)  { return nil, nil }
func (h hostile) Open(ino uint64) (disk.Sparse, error) { return h.files[ino], nil }

// hole is a file that is one hole.
type hole int64

func (h hole) Size() int64 { return int64(h) }

func (h hole) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

func (h hole) Extents(off, length int64, yield func(disk.Extent) error) error {
	return yield(disk.Extent{Offset: off, Length: length, Kind: disk.ExtentHole})
}

func TestHostileFilesystem(t *testing.T) {
	t.Parallel()
	const dir, file = disk.ModeDir | 0o755, disk.ModeRegular | 0o644
	h := hostile{
		root: 2,
		inodes: map[uint64]disk.Inode{
			2: {Ino: 2, Mode: dir}, 3: {Ino: 3, Mode: dir}, 4: {Ino: 4, Mode: file, Size: 1<<63 - 1, Links: 1},
			5: {Ino: 5, Mode: file, Size: 1 << 40, Links: 1}, 6: {Ino: 6, Mode: 0o644},
		},
		entries: map[uint64][]disk.DirEntry{
			2: {{Name: []byte("cycle"), Ino: 3}, {Name: []byte("endless"), Ino: 4}, {Name: []byte("tebibyte"), Ino: 5}, {Name: []byte("odd"), Ino: 6}},
			3: {{Name: []byte("up"), Ino: 2}, {Name: []byte("again"), Ino: 3}},
		},
		files: map[uint64]disk.Sparse{4: hole(1<<63 - 1), 5: hole(1 << 40)},
	}
	r := newRepo(t)
	rep := r.back(t, backup.Source{Disk: "root", Mount: "/", FS: h})
	damaged := make(map[string]error)
	for _, d := range rep.Damaged {
		damaged[string(d.Path)] = d.Err
	}
	for path, want := range map[string]error{
		"/cycle/again": disk.ErrCorrupt, "/cycle/up": disk.ErrCorrupt, "/endless": disk.ErrLimit, "/odd": disk.ErrCorrupt,
	} {
		if !errors.Is(damaged[path], want) {
			t.Errorf("%s is reported with %v, want %v", path, damaged[path], want)
		}
	}
	if len(damaged) != 4 || rep.DamagedTotal != 4 {
		t.Errorf("damaged: %v", rep.Damaged)
	}
	if rep.BytesRead != 0 || rep.FilesNew != 1 {
		t.Errorf("report %+v", rep)
	}
	r.judged(t)
	out := r.Restic(t, "ls", "--long", "latest")
	if !strings.Contains(out, "1099511627776") || strings.Contains(out, "endless") {
		t.Errorf("restic ls: %s", out)
	}
}
