package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/ecc"
)

// Parity of packs lies beside restic's folders, in ecc/, under the names of the
// packs. Restic does not look there.

// hintParity is the way out of a place that takes no parity.
const hintParity = "repository.ecc: 0 goes without parity"

// saveParity stores the parity of a pack that was just stored.
func (r *Repository) saveParity(ctx context.Context, pack ID, data []byte) error {
	if r.opts.Parity == 0 {
		return nil
	}
	parity, err := ecc.Encode(pack, data, r.opts.Parity)
	if err != nil {
		return err
	}
	h := parityHandle(pack)
	// One that is there is of this pack: a writer that died had stored it.
	if err := r.be.Save(ctx, h, parity); err != nil && !errors.Is(err, backend.ErrExist) {
		return &Error{Op: "save parity", File: h.String(), Err: err, Hint: hintParity}
	}
	return nil
}

func parityHandle(pack ID) backend.Handle {
	return backend.Handle{Type: backend.ParityFile, Name: pack.String()}
}

// keepParity makes sure that a pack, which is good, has parity that is good, and as
// much as it should have.
func (r *Repository) keepParity(ctx context.Context, pack ID, data []byte) error {
	if r.opts.Parity == 0 {
		return nil
	}
	want, err := ecc.Encode(pack, data, r.opts.Parity)
	if err != nil {
		return err
	}
	h := parityHandle(pack)
	have, err := readFile(ctx, r.be, "check parity", h, ecc.MaxSize(maxPackSize))
	switch {
	case err == nil && bytes.Equal(have, want):
		return nil
	case errors.Is(err, backend.ErrNotExist):
		return r.saveParity(ctx, pack, data)
	case err == nil || errors.Is(err, ErrDamaged) || errors.Is(err, ErrLimit):
		return r.replace(ctx, "renew parity", h, want)
	}
	return err
}

// replace puts a file in the place of a damaged one.
func (r *Repository) replace(ctx context.Context, op string, h backend.Handle, data []byte) error {
	be, ok := r.be.(backend.Replacer)
	if !ok {
		return &Error{Op: op, File: h.String(), Err: fmt.Errorf("%w: this kind of storage replaces no file", backend.ErrRefused)}
	}
	if err := be.Replace(ctx, h, data); err != nil {
		return &Error{Op: op, File: h.String(), Err: err, Hint: "nothing has changed; does the storage let files be replaced?"}
	}
	return nil
}

// RepairPack makes a damaged pack again from what is left of it and from its
// parity, and puts it in its place if write is true. It reports whether that could
// be done: false without an error means that the pack is what was once stored, or
// gone, or has no parity. More damage than the parity can bring back is
// [ErrDamaged], and then nothing changes.
//
// The repaired pack has the hash that is its name. A process that dies meanwhile
// leaves the damaged pack or the repaired one.
func (r *Repository) RepairPack(ctx context.Context, pack ID, write bool) (able bool, err error) {
	const op = "repair pack"
	ph, h := parityHandle(pack), backend.Handle{Type: backend.PackFile, Name: pack.String()}
	raw, err := readFile(ctx, r.be, op, ph, ecc.MaxSize(maxPackSize))
	if errors.Is(err, backend.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	parity, err := ecc.Parse(raw, maxPackSize)
	if err != nil {
		return false, damaged(op, ph, "%w", err)
	}
	if parity.Sum != pack {
		return false, damaged(op, ph, "its parity is of pack %s", ID(parity.Sum).Short())
	}
	info, err := r.be.Stat(ctx, h)
	if errors.Is(err, backend.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, &Error{Op: op, File: h.String(), Err: err}
	}
	data, unreadable, err := r.readPack(ctx, op, h, min(info.Size, parity.Length))
	if err != nil {
		return false, err
	}
	if unreadable == nil && info.Size == parity.Length && Hash(data) == pack {
		return false, nil
	}
	whole, err := parity.Repair(data)
	if err != nil {
		return false, damaged(op, h, "%w", err)
	}
	if !write {
		return true, nil
	}
	return true, r.replace(ctx, op, h, whole)
}

// RemoveParity removes the parity of packs that are not stored any more, and
// returns how many that was. It is for a repository in which no pack is missed: the
// parity of one that may come back would go too.
func (r *Repository) RemoveParity(ctx context.Context) (removed int, err error) {
	const op = "remove parity"
	if r.opts.Parity == 0 {
		return 0, nil
	}
	// First, since a pack is stored before its parity.
	ids, err := r.listFiles(ctx, op, backend.ParityFile)
	if err != nil {
		return 0, err
	}
	stored, err := r.StoredPacks(ctx)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		if _, ok := stored[id]; ok {
			continue
		}
		h := parityHandle(id)
		if err := r.be.Remove(ctx, h); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return removed, &Error{Op: op, File: h.String(), Err: err}
		}
		removed++
	}
	return removed, nil
}
