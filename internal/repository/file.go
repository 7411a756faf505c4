package repository

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// readFile returns the content of a file of at most limit bytes. Op is what the
// error says was going on.
func readFile(ctx context.Context, be backend.Backend, op string, h backend.Handle, limit int64) ([]byte, error) {
	info, err := be.Stat(ctx, h)
	if err != nil {
		return nil, &Error{Op: op, File: h.String(), Err: err}
	}
	return readSized(ctx, be, op, h, info.Size, limit)
}

// readSized returns the content of a file that is said to have size bytes.
func readSized(ctx context.Context, be backend.Backend, op string, h backend.Handle, size, limit int64) ([]byte, error) {
	if size < 0 || size > limit {
		return nil, &Error{Op: op, File: h.String(), Err: fmt.Errorf("%w: %d bytes, and the limit is %d", ErrLimit, size, limit)}
	}
	p := make([]byte, size)
	return p, readFull(ctx, be, op, h, p, 0)
}

// readFull fills p from offset off of a file. A file that ends before, or that its
// disk cannot read, is [ErrDamaged].
func readFull(ctx context.Context, be backend.Backend, op string, h backend.Handle, p []byte, off int64) error {
	n, err := be.ReadAt(ctx, h, p, off)
	switch {
	case n == len(p): // io.EOF is fine then
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return damaged(op, h, "only %d of %d bytes are there at %d", n, len(p), off)
	case errors.Is(err, backend.ErrUnreadable):
		return damaged(op, h, "%w", err)
	}
	return &Error{Op: op, File: h.String(), Err: err}
}

// saveFile seals and stores an index, snapshot or lock file, and returns its ID, also
// when storing failed: the file may be there all the same.
func (r *Repository) saveFile(ctx context.Context, op string, t backend.FileType, plain []byte) (ID, error) {
	if len(plain) > maxUnpackedSize {
		return ID{}, &Error{Op: op, Err: fmt.Errorf("%w: %d bytes, and the limit is %d", ErrLimit, len(plain), maxUnpackedSize)}
	}
	sealed := r.codec.sealFile(plain)
	id := Hash(sealed)
	h := backend.Handle{Type: t, Name: id.String()}
	if err := r.be.Save(ctx, h, sealed); err != nil {
		return id, &Error{Op: op, File: h.String(), Err: err}
	}
	return id, nil
}

// loadFile returns the plaintext of such a file.
func (r *Repository) loadFile(ctx context.Context, op string, t backend.FileType, id ID) ([]byte, error) {
	h := backend.Handle{Type: t, Name: id.String()}
	sealed, err := r.loadSealedFile(ctx, op, h, id)
	if err != nil {
		return nil, err
	}
	plain, err := r.codec.openFile(sealed)
	if err != nil {
		return nil, damaged(op, h, "%w", err)
	}
	return plain, nil
}

// loadSealedFile returns such a file as it is stored.
func (r *Repository) loadSealedFile(ctx context.Context, op string, h backend.Handle, id ID) ([]byte, error) {
	sealed, err := readFile(ctx, r.be, op, h, maxUnpackedSize+crypto.Overhead)
	if err != nil {
		return nil, err
	}
	switch {
	case len(sealed) == 0: // as a server that crashed leaves files that it did not sync
		return nil, damaged(op, h, "it is empty")
	case Hash(sealed) != id:
		return nil, damaged(op, h, "the content has another hash")
	}
	return sealed, nil
}

// listFiles returns the IDs of all files of a type. An empty lock file is none, as for
// restic: nobody is kept out by a process that died, or a server, before it was written.
func (r *Repository) listFiles(ctx context.Context, op string, t backend.FileType) ([]ID, error) {
	var ids []ID
	err := r.be.List(ctx, t, func(info backend.FileInfo) error {
		id, err := ParseID(info.Name)
		if err == nil && (t != backend.LockFile || info.Size > 0) {
			ids = append(ids, id)
		}
		return err
	})
	if err != nil {
		return nil, &Error{Op: op, File: string(t), Err: err}
	}
	return ids, nil
}
