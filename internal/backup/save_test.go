package backup_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/memory"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// storage is a backend whose packs are stored as save says.
type storage struct {
	memory.Backend
	save func() error
}

func (s *storage) Save(ctx context.Context, h backend.Handle, data []byte) error {
	if h.Type == backend.PackFile {
		if err := s.save(); err != nil {
			return err
		}
	}
	return s.Backend.Save(ctx, h, data)
}

// noise is a file that does not compress, of which nothing is kept. What is read of it
// is counted, and behind bad, if that is not 0, nothing can be read.
type noise struct {
	size, bad int64
	read      *atomic.Int64
}

func (n noise) Size() int64 { return n.size }

func (n noise) ReadAt(p []byte, off int64) (int, error) {
	if n.bad != 0 && off+int64(len(p)) > n.bad {
		return 0, &disk.Error{Layer: "raw", Structure: "content", Offset: n.bad, Err: disk.ErrCorrupt}
	}
	_, _ = rand.NewChaCha8([32]byte{byte(off), byte(off >> 8), byte(off >> 16), byte(off >> 24), byte(n.size)}).Read(p) // has no error
	n.read.Add(int64(len(p)))
	return len(p), nil
}

func (n noise) Extents(off, length int64, yield func(disk.Extent) error) error {
	return yield(disk.Extent{Offset: off, Length: length})
}

// noisy is a filesystem with files of noise.
func noisy(files ...noise) (h hostile, read *atomic.Int64) {
	h, read = flat(), new(atomic.Int64)
	for i, n := range files {
		n.read = read
		h.put(2, string(rune('a'+i)), uint64(10+i), "")
		inode := h.inodes[uint64(10+i)]
		inode.Size = n.size
		h.inodes[uint64(10+i)], h.files[uint64(10+i)] = inode, n
	}
	return h, read
}

func backUp(t *testing.T, be backend.Backend, h hostile) (*repository.Repository, *backup.Report, error) {
	t.Helper()
	r, err := repository.Create(t.Context(), be, []byte("a password"), repository.CreateOptions{KDF: &crypto.Params{N: 1 << 10, R: 8, P: 1}})
	if err != nil {
		t.Fatal(err)
	}
	src := root(h)
	src.DeviceID = 1
	rep, err := backup.Run(t.Context(), r, []backup.Source{src}, backup.Options{VM: "web", Time: time.Now()})
	return r, rep, err
}

// TestStorageSetsThePace: when nothing can be stored, the walk stops reading: what waits
// is bounded.
func TestStorageSetsThePace(t *testing.T) {
	t.Parallel()
	h, read := noisy(noise{size: 200 << 20}, noise{size: 201 << 20}, noise{size: 300 << 10})
	stopped, goOn := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	be := &storage{save: func() error {
		if once.CompareAndSwap(false, true) {
			close(stopped)
		}
		<-goOn
		return nil
	}}
	done := make(chan error, 1)
	go func() {
		_, _, err := backUp(t, be, h)
		done <- err
	}()
	select {
	case <-stopped:
	case err := <-done:
		t.Fatalf("the backup ended before it stored anything: %v", err)
	}
	for last := int64(-1); read.Load() != last; time.Sleep(300 * time.Millisecond) {
		last = read.Load()
	}
	// Two packs being stored, one that is full and one being filled, the queue, and what
	// the walk and those who save have in hand.
	if n := read.Load(); n > 150<<20 {
		t.Errorf("%d MiB were read while nothing could be stored", n>>20)
	}
	close(goOn)
	if err := <-done; err != nil || read.Load() != 401<<20+300<<10 {
		t.Errorf("%d bytes read, %v", read.Load(), err)
	}
}

// TestStorageFails: the error of the storage ends the backup in the middle of a file,
// and there is no snapshot.
func TestStorageFails(t *testing.T) {
	t.Parallel()
	h, read := noisy(noise{size: 700 << 20})
	full := errors.New("no space left")
	var packs atomic.Int64
	r, _, err := backUp(t, &storage{save: func() error {
		if packs.Add(1) > 2 {
			return full
		}
		return nil
	}}, h)
	if !errors.Is(err, full) || read.Load() > 300<<20 {
		t.Errorf("%d MiB read, error %v, want that of the storage", read.Load()>>20, err)
	}
	if snaps, err := backup.Find(t.Context(), r, "web"); err != nil || len(snaps) != 0 {
		t.Errorf("snapshots %v, %v", snaps, err)
	}
}

// TestDamageInALargeFile costs that file, of which some is saved already, and none of
// those beside it.
func TestDamageInALargeFile(t *testing.T) {
	t.Parallel()
	h, _ := noisy(noise{size: 20 << 20}, noise{size: 21 << 20, bad: 15 << 20}, noise{size: 22 << 20})
	_, rep, err := backUp(t, &storage{save: func() error { return nil }}, h)
	if err != nil {
		t.Fatal(err)
	}
	if rep.DamagedTotal != 1 || string(rep.Damaged[0].Path) != "/b" || rep.FilesNew != 2 {
		t.Errorf("%+v", rep)
	}
}
