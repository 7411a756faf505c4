// Package local keeps a repository in a folder, in restic's default layout.
package local

import (
	"context"
	"errors"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

var errSkeleton = errors.New("not written yet")

// Backend is a repository's folder.
type Backend struct{ dir string }

// New returns the backend of the folder dir, which need not exist for Create.
func New(dir string) *Backend { return &Backend{dir} }

// Save implements [backend.Backend].
func (b *Backend) Save(ctx context.Context, h backend.Handle, data []byte) error {
	return errSkeleton
}

// ReadAt implements [backend.Backend].
func (b *Backend) ReadAt(ctx context.Context, h backend.Handle, p []byte, off int64) (int, error) {
	return 0, errSkeleton
}

// Stat implements [backend.Backend].
func (b *Backend) Stat(ctx context.Context, h backend.Handle) (backend.FileInfo, error) {
	return backend.FileInfo{}, errSkeleton
}

// List implements [backend.Backend].
func (b *Backend) List(ctx context.Context, t backend.FileType, yield func(backend.FileInfo) error) error {
	return errSkeleton
}

// Remove implements [backend.Backend].
func (b *Backend) Remove(ctx context.Context, h backend.Handle) error { return errSkeleton }
