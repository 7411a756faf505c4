package repository

import (
	"context"
	"fmt"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// maxPackSize bounds a pack that is read as a whole: restic's largest, 128 MiB,
// and one blob and a header on top.
const maxPackSize = 128<<20 + maxBlobSize + maxHeaderSize

// Packs returns the IDs of all packs that the index names, in no order.
func (r *Repository) Packs() []ID { return r.currentIndex().packIDs() }

// PackSize returns the bytes of all packs that are stored, needed or not.
func (r *Repository) PackSize(ctx context.Context) (int64, error) {
	var size int64
	err := r.be.List(ctx, backend.PackFile, func(info backend.FileInfo) error {
		size += info.Size
		return nil
	})
	if err != nil {
		return 0, &Error{Op: "list packs", File: string(backend.PackFile), Err: err}
	}
	return size, nil
}

// CheckPack compares a pack's header with what the index says of it, and, if
// content is true, reads the whole pack, verifies its hash, and opens every blob
// of it. What does not fit is [ErrDamaged]; a pack that is not there is
// [backend.ErrNotExist].
func (r *Repository) CheckPack(ctx context.Context, pack ID, content bool) error {
	const op = "check pack"
	h := backend.Handle{Type: backend.PackFile, Name: pack.String()}
	info, err := r.be.Stat(ctx, h)
	if err != nil {
		return &Error{Op: op, File: h.String(), Err: err, Hint: hintRepair}
	}
	blobs, err := readHeader(ctx, r.be, op, r.codec.key, h, info.Size)
	if err != nil {
		return err
	}
	if err := compareHeader(blobs, r.currentIndex().packBlobs(pack)); err != nil {
		return damaged(op, h, "%w", err)
	}
	if !content {
		return nil
	}
	data, err := readSized(ctx, r.be, op, h, info.Size, maxPackSize)
	if err != nil {
		return err
	}
	if Hash(data) != pack {
		return damaged(op, h, "the content has another hash")
	}
	for _, e := range blobs {
		if _, err := r.codec.openBlob(nil, data[e.offset:e.offset+e.length], e); err != nil {
			return damaged(op, h, "%s blob %s: %w", e.blobType(), e.id.Short(), err)
		}
	}
	return nil
}

// compareHeader makes sure that each blob that the index names is in the pack,
// where the index says. Several index files can each name some.
func compareHeader(header, indexed []blobEntry) error {
	held := make(map[uint32]*blobEntry, len(header)) // by offset
	for i := range header {
		held[header[i].offset] = &header[i]
	}
	for i := range indexed {
		e := &indexed[i]
		if o := held[e.offset]; o == nil || !e.sameBlob(o) {
			return fmt.Errorf("the index has %s blob %s of %d bytes at %d, and the pack does not", e.blobType(), e.id.Short(), e.length, e.offset)
		}
	}
	return nil
}
