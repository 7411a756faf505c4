package wholedisk_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/testrepo"
	"github.com/drydock-vm/drydock/internal/restore"
)

// repo is a repository that the real restic can open.
type repo struct{ testrepo.Repo }

func newRepo(t *testing.T) repo { return repo{testrepo.New(t)} }

// size is what the repository takes, in bytes.
func (r repo) size(t *testing.T) (sum int64) {
	t.Helper()
	err := filepath.Walk(r.Dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// night is one backup of a VM with one disk.
func (r repo) night(t *testing.T, at int, src wholedisk.Source) (*backup.Report, *wholedisk.Report) {
	t.Helper()
	when := time.Date(2026, 11, 1, 3, 0, 0, 0, time.UTC).AddDate(0, 0, at)
	var rep *wholedisk.Report
	all, err := backup.Run(t.Context(), r.Repository, nil, backup.Options{
		VM: "db", Time: when,
		Objects: func(ctx context.Context, parent *repository.Snapshot) (list []backup.Object, err error) {
			list, rep, err = wholedisk.Save(ctx, r.Repository, parent, src, wholedisk.Options{Time: when})
			return list, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if sum := rep.Unchanged + rep.Zero + rep.Free + rep.Swap + rep.Read; sum != rep.Size {
		t.Errorf("%d of %d bytes are accounted for: %+v", sum, rep.Size, rep)
	}
	return all, rep
}

// read returns the disk as it is in a snapshot.
func (r repo) read(t *testing.T, id repository.ID) []byte {
	t.Helper()
	s, err := r.LoadSnapshot(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := restore.OpenTree(t.Context(), r.Repository, s)
	if err != nil {
		t.Fatal(err)
	}
	d, err := tree.Image("data")
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, d.Size())
	if _, err := d.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// guest is a disk in memory, with what its owner knows of it.
type guest struct {
	data    []byte
	unused  []bool // by block
	holes   []bool // blocks that the image does not have
	broken  map[int]bool
	dirty   map[string]map[int]bool // by bitmap: the blocks that were written to
	reads   int64
	refused error // of Dirty
}

const block = 4096

func newGuest(size int) *guest {
	return &guest{
		data: make([]byte, size), unused: make([]bool, (size+block-1)/block), holes: make([]bool, (size+block-1)/block),
		broken: map[int]bool{}, dirty: map[string]map[int]bool{},
	}
}

func (g *guest) write(b int, p []byte) {
	copy(g.data[b*block:], p)
	g.holes[b] = false
	for _, d := range g.dirty {
		d[b] = true
	}
}

func (g *guest) Size() int64 { return int64(len(g.data)) }

func (g *guest) ReadAt(p []byte, off int64) (int, error) {
	if off >= g.Size() {
		return 0, io.EOF
	}
	for b := int(off / block); b <= int((off+int64(len(p))-1)/block); b++ {
		if g.broken[b] {
			return 0, &disk.Error{Layer: "qcow2", Structure: "cluster", Offset: int64(b), Err: disk.ErrCorrupt}
		}
	}
	n := copy(p, g.data[off:])
	g.reads += int64(n)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (g *guest) Extents(off, length int64, yield func(disk.Extent) error) error {
	for end := off + length; off < end; {
		e := disk.Extent{Offset: off, Length: min((off/block+1)*block, end) - off}
		if g.holes[off/block] {
			e.Kind = disk.ExtentHole
		}
		if err := yield(e); err != nil {
			return err
		}
		off += e.Length
	}
	return nil
}

func (g *guest) source(bitmap string) wholedisk.Source {
	return wholedisk.Source{
		Disk: "data", Content: g, Bitmap: bitmap,
		Unused: func(_ context.Context, yield func(off, length int64, swap bool) error) ([]error, error) {
			for b, unused := range g.unused {
				if unused {
					off := int64(b) * block
					if err := yield(off, min(block, g.Size()-off), b%5 == 0); err != nil {
						return nil, err
					}
				}
			}
			return nil, nil
		},
		Dirty: func(_ context.Context, name string, yield func(off, length int64) error) error {
			if g.refused != nil {
				return g.refused
			}
			d, ok := g.dirty[name]
			if !ok {
				return errors.New("it is missing")
			}
			for b := range g.unused {
				if d[b] {
					off := int64(b) * block
					if err := yield(off, min(block, g.Size()-off)); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

// noise fills p with what cannot be compressed.
func noise(p []byte, seed uint64) {
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), 7}).Read(p)
}
