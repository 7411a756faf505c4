package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// maxPackSize bounds a pack that is read as a whole: restic's largest, 128 MiB,
// and one blob and a header on top.
const maxPackSize = 128<<20 + maxBlobSize + maxHeaderSize

// Blob names a blob.
type Blob struct {
	Type BlobType
	ID   ID
}

// PackError is what is wrong with one pack. It wraps the first thing that is.
type PackError struct {
	Pack ID
	// Bad are the blobs that an index says are in the pack, and that cannot be
	// read from it. There may be none: then the pack is not what was once stored,
	// and nothing of it that anybody needs is lost.
	Bad []Blob
	Err error
}

// Error is one line.
func (e *PackError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PackError) Unwrap() error { return e.Err }

// Packs returns the IDs of all packs that the index names, in no order.
func (r *Repository) Packs() []ID { return r.currentIndex().packIDs() }

// PackSize returns the bytes of all packs that are stored, needed or not.
func (r *Repository) PackSize(ctx context.Context) (size int64, err error) {
	packs, err := r.StoredPacks(ctx)
	for _, n := range packs {
		size += n
	}
	return size, err
}

// PackOf returns the packs that hold a blob, by what the index says.
func (r *Repository) PackOf(b Blob) []ID {
	var packs []ID
	for _, p := range r.currentIndex().lookup(b.Type, b.ID) {
		packs = append(packs, p.pack)
	}
	return packs
}

// StoredPacks returns the sizes in bytes of all packs that are stored.
func (r *Repository) StoredPacks(ctx context.Context) (map[ID]int64, error) {
	sizes := make(map[ID]int64)
	err := r.be.List(ctx, backend.PackFile, func(info backend.FileInfo) error {
		id, err := ParseID(info.Name)
		sizes[id] = info.Size
		return err
	})
	if err != nil {
		return nil, &Error{Op: "list packs", File: string(backend.PackFile), Err: err}
	}
	return sizes, nil
}

// ComparePacks compares the packs that are stored with the index, which is loaded: as much
// as a listing tells. Lost are packs that the index names and that are not stored, or that
// end before what should be in them does. Unnamed are those that it does not name, with
// something in them that it has nowhere: an index file is gone, or a writer has died, or is
// at work, if there is no exclusive lock.
func (r *Repository) ComparePacks(ctx context.Context) (lost, unnamed []ID, err error) {
	stored, err := r.StoredPacks(ctx)
	if err != nil {
		return nil, nil, err
	}
	for id, end := range r.currentIndex().ends() {
		if size, ok := stored[id]; !ok || size < end {
			lost = append(lost, id)
		}
		delete(stored, id)
	}
	packs, err := r.readHeaders(ctx, "look for packs that no index names", stored)
	for _, p := range packs {
		if r.hasNews(&p) {
			unnamed = append(unnamed, p.id)
		}
	}
	return lost, unnamed, err
}

// CheckPack compares a pack's header with what the index says of it, and, if
// content is true, reads the whole pack, verifies its hash, and opens every blob
// of it; with [Options.Parity] a pack that is good gets its parity then, if it has
// none that is. What does not fit is a [*PackError] that is [ErrDamaged], or
// [backend.ErrNotExist] for a pack that is not there. Any other error is of the
// storage.
func (r *Repository) CheckPack(ctx context.Context, pack ID, content bool) error {
	const op = "check pack"
	h := backend.Handle{Type: backend.PackFile, Name: pack.String()}
	indexed := r.currentIndex().packBlobs(pack)
	info, err := r.be.Stat(ctx, h)
	if err != nil {
		return packError(pack, indexed, &Error{Op: op, File: h.String(), Err: err, Hint: hintRepair})
	}
	header, headerErr := readHeader(ctx, r.be, op, r.codec.key, h, info.Size)
	if headerErr != nil && !errors.Is(headerErr, ErrDamaged) {
		return headerErr
	}
	if headerErr == nil {
		if err := compareHeader(header, indexed); err != nil {
			headerErr = damaged(op, h, "%w", err)
		}
	}
	if !content && headerErr == nil {
		return nil
	}
	// A header that is damaged says nothing of the blobs before it: the index
	// names them, and whoever restores asks the index.
	data, unreadable, err := r.readPack(ctx, op, h, info.Size)
	if err != nil {
		return err
	}
	bad, err := r.checkContent(op, h, data, header, indexed)
	for _, cause := range []error{headerErr, unreadable} {
		if cause != nil {
			err = cause
		}
	}
	if err != nil {
		return packError(pack, bad, err)
	}
	return r.keepParity(ctx, pack, data)
}

// sector is how much of a file a bad sector takes along.
const sector = 4096

// readPack reads a pack of that size, or as much of it. What its disk cannot read is
// zeros, and the error unreadable says so.
func (r *Repository) readPack(ctx context.Context, op string, h backend.Handle, size int64) (data []byte, unreadable, err error) {
	data, err = readSized(ctx, r.be, op, h, size, maxPackSize)
	if !errors.Is(err, backend.ErrUnreadable) {
		return data, nil, err
	}
	unreadable = err
	for off := int64(0); off < size; off += sector {
		part := data[off:min(off+sector, size)]
		err := readFull(ctx, r.be, op, h, part, off)
		if errors.Is(err, backend.ErrUnreadable) {
			clear(part)
		} else if err != nil {
			return nil, nil, err
		}
	}
	return data, unreadable, nil
}

// checkContent verifies the hash of a pack and opens the blobs in it: those that
// its header names, and those that the index does. It returns those of the index
// that cannot be opened.
func (r *Repository) checkContent(op string, h backend.Handle, data []byte, header, indexed []blobEntry) (bad []blobEntry, err error) {
	if Hash(data).String() != h.Name {
		err = damaged(op, h, "the content has another hash")
	}
	opened := make(map[blobEntry]error, len(header))
	var buf []byte
	open := func(e *blobEntry) error {
		key := *e
		key.meta &^= metaPack
		cause, done := opened[key]
		if !done {
			buf, cause = r.openFrom(buf, data, e)
			opened[key] = cause
		}
		return cause
	}
	for i := range indexed {
		if cause := open(&indexed[i]); cause != nil {
			bad = append(bad, indexed[i])
			if err == nil {
				err = damaged(op, h, "%s blob %s: %w", indexed[i].blobType(), indexed[i].id.Short(), cause)
			}
		}
	}
	for i := range header {
		if cause := open(&header[i]); cause != nil && err == nil {
			err = damaged(op, h, "%s blob %s: %w", header[i].blobType(), header[i].id.Short(), cause)
		}
	}
	return bad, err
}

// openFrom opens one blob of a pack that was read as a whole.
func (r *Repository) openFrom(buf, pack []byte, e *blobEntry) ([]byte, error) {
	end := uint64(e.offset) + uint64(e.length)
	if end > uint64(len(pack)) {
		return buf, fmt.Errorf("it would end at %d, and the pack at %d", end, len(pack))
	}
	if e.size > maxBlobSize || e.length > maxBlobSize+crypto.Overhead {
		return buf, fmt.Errorf("%w: %d bytes, %d stored, and the limit is %d", ErrLimit, e.size, e.length, maxBlobSize)
	}
	scratch := r.codec.buffer()
	defer r.codec.release(scratch)
	// A copy, since it is decrypted in place, and blobs that lie can overlap.
	*scratch = append(*scratch, pack[e.offset:end]...)
	plain, err := r.codec.openBlob(buf, *scratch, *e)
	if err != nil {
		return buf, err
	}
	return plain, nil
}

// packError says that blobs cannot be read from a pack.
func packError(pack ID, bad []blobEntry, cause error) error {
	if !errors.Is(cause, ErrDamaged) && !errors.Is(cause, backend.ErrNotExist) {
		return cause
	}
	e := &PackError{Pack: pack, Err: cause}
	for i := range bad {
		e.Bad = append(e.Bad, Blob{bad[i].blobType(), bad[i].id})
	}
	return e
}

// compareHeader makes sure that each blob that the index names is in the pack,
// where the index says. Several index files can each name some.
func compareHeader(header, indexed []blobEntry) error {
	for i := range indexed {
		e := &indexed[i]
		// Those of the header are in order.
		at, found := slices.BinarySearchFunc(header, e.offset, func(h blobEntry, off uint32) int { return cmp.Compare(h.offset, off) })
		if !found || !e.sameBlob(&header[at]) {
			return fmt.Errorf("the index has %s blob %s of %d bytes at %d, and the pack does not", e.blobType(), e.id.Short(), e.length, e.offset)
		}
	}
	return nil
}
