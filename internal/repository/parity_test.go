package repository_test

import (
	"context"
	"sync"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/memory"
)

// renewing notes which files were renewed.
type renewing struct {
	memory.Backend
	mu      sync.Mutex // guards renewed
	renewed map[backend.FileType]int
}

func (r *renewing) Renew(_ context.Context, h backend.Handle) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.renewed[h.Type]++
	return nil
}

// Parity is kept from being destroyed for as long as its packs.
func TestParityIsRenewed(t *testing.T) {
	be := &renewing{renewed: map[backend.FileType]int{}}
	r := createIn(t, be, repository.Options{Parity: 5})
	for seed := range uint64(2) {
		if _, _, err := r.SaveBlob(t.Context(), repository.DataBlob, random(seed, 100_000)); err != nil {
			t.Fatal(err)
		}
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Renew(t.Context()); err != nil || be.renewed[backend.PackFile] != 2 || be.renewed[backend.ParityFile] != 2 {
		t.Errorf("renewed %v: %v", be.renewed, err)
	}
}

// A percentage that cannot be is refused before anything is stored.
func TestParityOption(t *testing.T) {
	for _, percent := range []int{-1, 51} {
		be := &memory.Backend{}
		_, err := repository.Create(t.Context(), be, []byte(password), repository.CreateOptions{Options: repository.Options{Parity: percent}, KDF: cheap})
		if err == nil {
			t.Errorf("%d %% was taken", percent)
		}
	}
}
