package backup_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

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

// TestMuchOfLittle: folders that all have the same entries, and files that all have the
// same terabyte, end at a limit. What was before that is backed up.
func TestMuchOfLittle(t *testing.T) {
	t.Parallel()
	const dir, file = disk.ModeDir | 0o755, disk.ModeRegular | 0o644
	h := hostile{
		root: 2, inodes: map[uint64]disk.Inode{2: {Ino: 2, Mode: dir}},
		entries: map[uint64][]disk.DirEntry{}, files: map[uint64]disk.Sparse{},
	}
	for i := range uint64(20) {
		d, f := 100+i, 200+i
		h.inodes[d], h.inodes[f] = disk.Inode{Ino: d, Mode: dir}, disk.Inode{Ino: f, Mode: file, Size: 1 << 30, Links: 1}
		h.files[f] = hole(1 << 30)
		h.entries[2] = append(h.entries[2], disk.DirEntry{Name: fmt.Appendf(nil, "d%02d", i), Ino: d})
		h.entries[d] = []disk.DirEntry{{Name: []byte("file"), Ino: f}}
	}
	for name, c := range map[string]struct {
		opts    backup.Options
		damaged int64
		want    string
	}{
		"entries": {backup.Options{MaxEntries: 30}, 10, "more than 30 files and folders"},
		"bytes":   {backup.Options{MaxBytes: 5 << 30}, 15, "more than 5368709120 bytes in all"},
		"neither": {backup.Options{MaxEntries: 40, MaxBytes: 20 << 30}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.opts.VM, c.opts.Time = "web", time.Now()
			r := newRepo(t)
			rep, err := backup.Run(t.Context(), r.Repository, []backup.Source{{Disk: "root", Mount: "/", FS: h, DeviceID: 1}}, c.opts)
			if err != nil || rep.DamagedTotal != c.damaged || rep.FilesNew != 20-c.damaged {
				t.Fatalf("%+v, %v", rep, err)
			}
			for _, d := range rep.Damaged {
				if !errors.Is(d.Err, disk.ErrLimit) || !strings.Contains(d.Err.Error(), c.want) {
					t.Errorf("%s: %v", d.Path, d.Err)
				}
			}
			r.judged(t)
		})
	}
}
