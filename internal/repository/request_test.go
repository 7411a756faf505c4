package repository_test

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/memory"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// counted is a backend that counts what is asked of packs: at a server each costs.
type counted struct {
	memory.Backend
	stats, reads int
}

func (c *counted) Stat(ctx context.Context, h backend.Handle) (backend.FileInfo, error) {
	if h.Type == backend.PackFile {
		c.stats++
	}
	return c.Backend.Stat(ctx, h)
}

func (c *counted) ReadAt(ctx context.Context, h backend.Handle, p []byte, off int64) (int, error) {
	if h.Type == backend.PackFile {
		c.reads++
	}
	return c.Backend.ReadAt(ctx, h, p, off)
}

// TestRequestsOfCheck: a pack is looked at with one question for its size and one for its
// header, unless that is a long one, as packs of many small blobs have it.
func TestRequestsOfCheck(t *testing.T) {
	for _, c := range []struct{ blobs, reads int }{{1, 1}, {50, 1}, {109, 1}, {110, 2}, {2000, 2}} {
		be := &counted{}
		password := []byte("a password")
		repo, err := repository.Create(t.Context(), be, password, repository.CreateOptions{KDF: &crypto.Params{N: 1 << 10, R: 8, P: 1}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range c.blobs {
			if _, _, err := repo.SaveBlob(t.Context(), repository.DataBlob, binary.BigEndian.AppendUint64(nil, uint64(i))); err != nil {
				t.Fatal(err)
			}
		}
		if err := repo.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		packs := repo.Packs()
		if len(packs) != 1 {
			t.Fatalf("%d packs", len(packs))
		}
		if err := repo.CheckPack(t.Context(), packs[0], false); err != nil {
			t.Errorf("%d blobs: %v", c.blobs, err)
		}
		if be.stats != 1 || be.reads != c.reads {
			t.Errorf("%d blobs: its size was asked %d times, and it was read %d times, want %d", c.blobs, be.stats, be.reads, c.reads)
		}
	}
}
