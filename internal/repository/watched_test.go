package repository_test

import (
	"context"
	"sync"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/memory"
)

// watched is a backend in memory that can be told to fail, and that remembers the
// order in which files were stored.
type watched struct {
	memory.Backend
	before func(op string, h backend.Handle) error // called before Save and Remove

	mu    sync.Mutex // guards saved
	saved []backend.FileType
}

func (w *watched) Save(ctx context.Context, h backend.Handle, data []byte) error {
	if w.before != nil {
		if err := w.before("save", h); err != nil {
			return err
		}
	}
	err := w.Backend.Save(ctx, h, data)
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.saved = append(w.saved, h.Type)
	}
	return err
}

func (w *watched) Remove(ctx context.Context, h backend.Handle) error {
	if w.before != nil {
		if err := w.before("remove", h); err != nil {
			return err
		}
	}
	return w.Backend.Remove(ctx, h)
}

func (w *watched) count(t testing.TB, ft backend.FileType) int {
	t.Helper()
	n := 0
	err := w.List(t.Context(), ft, func(backend.FileInfo) error { n++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func createIn(t testing.TB, be backend.Backend, o repository.Options) *repository.Repository {
	t.Helper()
	r, err := repository.Create(t.Context(), be, []byte(password), repository.CreateOptions{Options: o, KDF: cheap})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func openIn(t testing.TB, be backend.Backend) *repository.Repository {
	t.Helper()
	r, err := repository.Open(t.Context(), be, []byte(password), repository.Options{})
	if err == nil {
		err = r.LoadIndex(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}
