package repository

import (
	"context"
	"fmt"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// HasBlob reports whether the repository has the blob, or will have it after the
// next Flush.
func (r *Repository) HasBlob(t BlobType, id ID) bool {
	_, ok := r.BlobSize(t, id)
	return ok
}

// BlobSize returns the size in bytes of the blob's content. It is what an index
// says: LoadBlob may find the blob damaged.
func (r *Repository) BlobSize(t BlobType, id ID) (int64, bool) {
	// In this order: a blob is in the index before it stops being pending.
	r.saver.mu.Lock()
	pending, ok := r.saver.pending[blobKey{t, id}]
	r.saver.mu.Unlock()
	if ok {
		return pending, true
	}
	size, ok := r.currentIndex().size(t, id)
	return int64(size), ok
}

// LoadBlob returns the blob's content, in buf if that is large enough. The
// content is what the ID says, or an error: [ErrBlobNotFound] if no index names
// it, [ErrDamaged] if it is in no pack any more as it was stored. A blob of this
// process can be loaded after [Repository.Flush].
func (r *Repository) LoadBlob(ctx context.Context, t BlobType, id ID, buf []byte) ([]byte, error) {
	op := fmt.Sprintf("load %s blob %s", t, id.Short())
	places := r.currentIndex().lookup(t, id)
	if len(places) == 0 {
		return nil, &Error{Op: op, Err: ErrBlobNotFound, Hint: "if index files are missing, restic repair index (before restic 0.16: rebuild-index) makes them from the packs"}
	}
	var cause error
	for _, p := range places {
		data, err := r.loadFrom(ctx, op, p, buf)
		if err == nil {
			return data, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if cause == nil {
			cause = err // the next copy may be whole
		} else {
			cause = fmt.Errorf("%w; %w", cause, err)
		}
	}
	return nil, cause
}

// loadFrom loads one copy of a blob.
func (r *Repository) loadFrom(ctx context.Context, op string, p place, buf []byte) ([]byte, error) {
	h := backend.Handle{Type: backend.PackFile, Name: p.pack.String()}
	if p.size > maxBlobSize || p.length > maxBlobSize+crypto.Overhead {
		return nil, &Error{Op: op, File: h.String(), Err: fmt.Errorf("%w: %d bytes, %d stored, and the limit is %d", ErrLimit, p.size, p.length, maxBlobSize)}
	}
	scratch := r.codec.buffer()
	defer r.codec.release(scratch)
	if cap(*scratch) < int(p.length) {
		*scratch = make([]byte, p.length)
	}
	sealed := (*scratch)[:p.length]
	if err := readFull(ctx, r.be, op, h, sealed, int64(p.offset)); err != nil {
		return nil, err
	}
	data, err := r.codec.openBlob(buf, sealed, p.blobEntry)
	if err != nil {
		return nil, damaged(op, h, "%w", err)
	}
	return data, nil
}
