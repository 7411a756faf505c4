// Package memory keeps a repository in memory, for tests and throwaway work.
package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// Backend is a repository in memory. The zero value is empty and ready.
type Backend struct {
	mu    sync.RWMutex // guards files
	files map[backend.Handle][]byte
}

var (
	_ backend.Backend  = (*Backend)(nil)
	_ backend.Replacer = (*Backend)(nil)
)

// Save implements [backend.Backend].
func (b *Backend) Save(ctx context.Context, h backend.Handle, data []byte) error {
	if err := errors.Join(ctx.Err(), h.Validate()); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.files[h]; ok {
		return fmt.Errorf("%s: %w", h, backend.ErrExist)
	}
	if b.files == nil {
		b.files = make(map[backend.Handle][]byte)
	}
	b.files[h] = bytes.Clone(data)
	return nil
}

// Replace implements [backend.Replacer].
func (b *Backend) Replace(ctx context.Context, h backend.Handle, data []byte) error {
	if err := errors.Join(ctx.Err(), h.Validate()); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.files == nil {
		b.files = make(map[backend.Handle][]byte)
	}
	b.files[h] = bytes.Clone(data)
	return nil
}

// file returns the content of h, which is never changed.
func (b *Backend) file(ctx context.Context, h backend.Handle) ([]byte, error) {
	if err := errors.Join(ctx.Err(), h.Validate()); err != nil {
		return nil, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	data, ok := b.files[h]
	if !ok {
		return nil, fmt.Errorf("%s: %w", h, backend.ErrNotExist)
	}
	return data, nil
}

// ReadAt implements [backend.Backend].
func (b *Backend) ReadAt(ctx context.Context, h backend.Handle, p []byte, off int64) (int, error) {
	data, err := b.file(ctx, h)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("%s: offset %d is negative", h, off)
	}
	n := copy(p, data[min(off, int64(len(data))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Stat implements [backend.Backend].
func (b *Backend) Stat(ctx context.Context, h backend.Handle) (backend.FileInfo, error) {
	data, err := b.file(ctx, h)
	return backend.FileInfo{Name: h.Name, Size: int64(len(data))}, err
}

// List implements [backend.Backend].
func (b *Backend) List(ctx context.Context, t backend.FileType, yield func(backend.FileInfo) error) error {
	b.mu.RLock()
	var found []backend.FileInfo
	for h, data := range b.files {
		if h.Type == t {
			found = append(found, backend.FileInfo{Name: h.Name, Size: int64(len(data))})
		}
	}
	b.mu.RUnlock()
	for _, info := range found {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := yield(info); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Remove implements [backend.Backend].
func (b *Backend) Remove(ctx context.Context, h backend.Handle) error {
	if _, err := b.file(ctx, h); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.files, h)
	return nil
}
