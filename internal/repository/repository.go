// Package repository reads and writes restic repositories.
package repository

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/restic/chunker"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

var errSkeleton = errors.New("not written yet")

// Compression is how hard blobs are compressed.
type Compression uint8

// The compressions, named as restic names them.
const (
	CompressionAuto Compression = iota
	CompressionOff              // data blobs only; trees and indexes always are
	CompressionMax
)

// Options are the choices of one user of a repository. The zero value is good.
type Options struct {
	Compression Compression
	// PackSize is the size in bytes at which a pack is closed, 4 MiB to 128
	// MiB; 0 means 16 MiB.
	PackSize int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// CreateOptions are the choices at the making of a repository.
type CreateOptions struct {
	Options
}

// Repository is an open repository. All methods are safe for concurrent use.
type Repository struct{}

// Create makes an empty repository of format 2 and opens it. A place that holds
// one is [ErrExist].
func Create(ctx context.Context, be backend.Backend, password []byte, opts CreateOptions) (*Repository, error) {
	return nil, errSkeleton
}

// Open opens a repository of format 1 or 2. It can then list snapshots and take
// locks; blobs want [Repository.LoadIndex] first.
func Open(ctx context.Context, be backend.Backend, password []byte, opts Options) (*Repository, error) {
	return nil, errSkeleton
}

// LoadIndex reads the index files that were not read before. It comes after
// [Repository.Lock] and before any use of blobs, and after a listing of the
// snapshots that will be read.
func (r *Repository) LoadIndex(ctx context.Context) error { return errSkeleton }

// SaveBlob stores data, unless the repository has it, and returns its ID and the
// bytes that it takes, 0 when it was there. It compresses and encrypts in the
// caller's goroutine: call it from as many as there are cores. Data is not kept.
func (r *Repository) SaveBlob(ctx context.Context, t BlobType, data []byte) (id ID, stored int64, err error) {
	return ID{}, 0, errSkeleton
}

// SaveStream cuts rd into chunks as restic would, saves them on all cores, and
// returns their IDs in order, the bytes read, and the bytes that they take.
func (r *Repository) SaveStream(ctx context.Context, rd io.Reader) (content []ID, size, stored int64, err error) {
	return nil, 0, 0, errSkeleton
}

// HasBlob reports whether the repository has the blob, or will have it after the
// next Flush.
func (r *Repository) HasBlob(t BlobType, id ID) bool { return false }

// BlobSize returns the size in bytes of the blob's content.
func (r *Repository) BlobSize(t BlobType, id ID) (int64, bool) { return 0, false }

// LoadBlob returns the blob's content, in buf if that is large enough. The
// content is what the ID says, or an error.
func (r *Repository) LoadBlob(ctx context.Context, t BlobType, id ID, buf []byte) ([]byte, error) {
	return nil, errSkeleton
}

// Flush makes everything that was saved before it durable: packs first, then
// their index. Only then may a snapshot reach it.
func (r *Repository) Flush(ctx context.Context) error { return errSkeleton }

// NewChunker returns a chunker that cuts where restic cuts: chunks of 512 KiB to
// 8 MiB.
func (r *Repository) NewChunker(rd io.Reader) *chunker.Chunker { return nil }
