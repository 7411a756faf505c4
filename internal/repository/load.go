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
	var data []byte
	err := r.eachCopy(ctx, t, id, func(op string, p place) (err error) {
		data, err = r.loadFrom(ctx, op, p, buf)
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

// eachCopy calls load for each place of a blob until one is whole.
func (r *Repository) eachCopy(ctx context.Context, t BlobType, id ID, load func(op string, p place) error) error {
	op := fmt.Sprintf("load %s blob %s", t, id.Short())
	places := r.currentIndex().lookup(t, id)
	if len(places) == 0 {
		return &Error{Op: op, Err: ErrBlobNotFound, Hint: "if index files are missing, restic repair index (before restic 0.16: rebuild-index) makes them from the packs"}
	}
	var cause error
	for _, p := range places {
		err := load(op, p)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if cause == nil {
			cause = err // the next copy may be whole
		} else {
			cause = fmt.Errorf("%w; %w", cause, err)
		}
	}
	return cause
}

// loadFrom loads one copy of a blob.
func (r *Repository) loadFrom(ctx context.Context, op string, p place, buf []byte) ([]byte, error) {
	h := backend.Handle{Type: backend.PackFile, Name: p.pack.String()}
	scratch := r.codec.buffer()
	defer r.codec.release(scratch)
	sealed, err := r.loadSealed(ctx, op, h, p, *scratch)
	if err != nil {
		return nil, err
	}
	*scratch = sealed
	data, err := r.codec.openBlob(buf, sealed, p.blobEntry)
	if err != nil {
		return nil, damaged(op, h, "%w", err)
	}
	return data, nil
}

// loadSealed returns one copy of a blob as it is stored, in buf if that is large enough.
func (r *Repository) loadSealed(ctx context.Context, op string, h backend.Handle, p place, buf []byte) ([]byte, error) {
	if p.size > maxBlobSize || p.length > maxBlobSize+crypto.Overhead {
		return nil, &Error{Op: op, File: h.String(), Err: fmt.Errorf("%w: %d bytes, %d stored, and the limit is %d", ErrLimit, p.size, p.length, maxBlobSize)}
	}
	if cap(buf) < int(p.length) {
		buf = make([]byte, p.length)
	}
	return buf[:p.length], readFull(ctx, r.be, op, h, buf[:p.length], int64(p.offset))
}
