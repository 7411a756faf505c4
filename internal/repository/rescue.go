package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// Rescued is what [Repository.Rescue] did.
type Rescued struct {
	Blobs int   // that were stored anew
	Bytes int64 // of their content
	Gone  []ID  // packs that nobody needs any more: no index names them, and they are removed
}

// Rescue stores anew what lies in packs that are damaged or gone, and blobs that no
// index names: as far as they can be read, from the packs, and else from a second
// source. Source is asked for one blob; its content is verified, and an error that is
// damage, or that says that it is not there, means no more than that. A pack of which
// everything lies elsewhere then is taken out of the index and removed; another one
// stays as it is. The caller holds an exclusive lock, and has loaded the index under it.
//
// A process that dies meanwhile leaves blobs that are stored twice, or a pack that no
// index names.
func (r *Repository) Rescue(ctx context.Context, packs []ID, missing []Blob, source func(context.Context, Blob) ([]byte, error)) (*Rescued, error) {
	if err := r.writable(); err != nil {
		return nil, err
	}
	bad, err := r.alsoBad(ctx, packs)
	if err != nil {
		return nil, err
	}
	s := &rescue{r: r, source: source, did: &Rescued{}, gone: make(map[ID]bool)}
	entries := make(map[ID][]blobEntry)
	for id := range bad {
		entries[id] = r.currentIndex().packBlobs(id)
	}
	if err := r.setIndex(func(x *index) (*index, error) { return x.without(bad) }); err != nil {
		return nil, err
	}
	if err := s.all(ctx, entries, missing); err != nil {
		return s.did, errors.Join(err, r.addAll(entries))
	}
	for id := range s.gone {
		delete(entries, id)
	}
	if err := r.addAll(entries); err != nil {
		return s.did, err
	}
	return s.did, r.drop(ctx, s.gone, s.did)
}

// rescue is one run of Rescue.
type rescue struct {
	r      *Repository
	source func(context.Context, Blob) ([]byte, error)
	did    *Rescued
	gone   map[ID]bool // packs of which everything lies elsewhere
}

// all stores what lies in packs, and what is missing.
func (s *rescue) all(ctx context.Context, packs map[ID][]blobEntry, missing []Blob) error {
	for id, blobs := range packs {
		if err := s.pack(ctx, id, blobs); err != nil {
			return err
		}
	}
	for _, b := range missing {
		if _, err := s.fetch(ctx, b); err != nil {
			return err
		}
	}
	return s.r.Flush(ctx)
}

// alsoBad returns the packs, and those that hold a second copy of what is in them and
// cannot give it back either.
func (r *Repository) alsoBad(ctx context.Context, packs []ID) (map[ID]bool, error) {
	idx := r.currentIndex()
	bad := make(map[ID]bool)
	for queue := slices.Clone(packs); len(queue) > 0; queue = queue[1:] {
		blobs := idx.packBlobs(queue[0])
		if bad[queue[0]] || len(blobs) == 0 { // a prune took it away meanwhile
			continue
		}
		bad[queue[0]] = true
		for i := range blobs {
			for _, p := range idx.lookup(blobs[i].blobType(), blobs[i].id) {
				if bad[p.pack] {
					continue
				}
				_, err := r.loadFrom(ctx, "rescue blobs", p, nil)
				if err != nil && !IsDamage(err) {
					return nil, err
				}
				if err != nil {
					queue = append(queue, p.pack)
				}
			}
		}
	}
	return bad, nil
}

// pack stores anew what is in a pack. First comes what only the source has: if that is
// not all, the pack has to stay, and keeps the rest.
func (s *rescue) pack(ctx context.Context, id ID, blobs []blobEntry) error {
	const op = "rescue blobs"
	h := backend.Handle{Type: backend.PackFile, Name: id.String()}
	var data []byte
	info, err := s.r.be.Stat(ctx, h)
	if err == nil {
		data, _, err = s.r.readPack(ctx, op, h, info.Size)
	}
	if err != nil && !IsDamage(err) {
		return err
	}
	var readable []*blobEntry
	whole := true
	for i := range blobs {
		e := &blobs[i]
		if _, err := s.r.openFrom(nil, data, e); err == nil {
			readable = append(readable, e)
			continue
		}
		fetched, err := s.fetch(ctx, Blob{e.blobType(), e.id})
		if err != nil {
			return err
		}
		whole = whole && fetched
	}
	if !whole {
		return nil
	}
	for _, e := range readable {
		plain, err := s.r.openFrom(nil, data, e)
		if err != nil {
			return damaged(op, h, "%w", err) // memory that fails
		}
		if err := s.save(ctx, Blob{e.blobType(), e.id}, plain); err != nil {
			return err
		}
	}
	s.gone[id] = true
	return nil
}

// fetch stores a blob that cannot be read here, and reports whether it is stored then.
func (s *rescue) fetch(ctx context.Context, b Blob) (bool, error) {
	if s.r.HasBlob(b.Type, b.ID) {
		return true, nil
	}
	if s.source == nil {
		return false, nil
	}
	data, err := s.source(ctx, b)
	if err != nil && !IsDamage(err) {
		return false, fmt.Errorf("the second source of blobs: %w", err)
	}
	if err != nil || Hash(data) != b.ID {
		return false, nil
	}
	return true, s.save(ctx, b, data)
}

// save stores a blob, unless it lies elsewhere.
func (s *rescue) save(ctx context.Context, b Blob, data []byte) error {
	if s.r.HasBlob(b.Type, b.ID) {
		return nil
	}
	if _, _, err := s.r.SaveBlob(ctx, b.Type, data); err != nil {
		return err
	}
	s.did.Blobs++
	s.did.Bytes += int64(len(data))
	return nil
}

// drop takes packs out of the index files, and removes them.
func (r *Repository) drop(ctx context.Context, gone map[ID]bool, did *Rescued) error {
	if len(gone) == 0 {
		return nil
	}
	const op = "replace damaged packs"
	ids, err := r.listFiles(ctx, op, backend.IndexFile)
	if err != nil {
		return err
	}
	d := &dropper{r: r, op: op, gone: gone, named: make(map[indexedPack]int)}
	var hit []ID // those that name one of the packs
	for _, id := range ids {
		packs, err := r.readIndexFile(ctx, op, id)
		if err != nil && !IsDamage(err) {
			return err
		}
		names := false
		for _, p := range packs {
			d.named[p.indexed()]++
			names = names || gone[p.id]
		}
		if names {
			hit = append(hit, id)
		}
	}
	for _, id := range hit {
		if err := d.replace(ctx, id); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return err
		}
	}
	for id := range gone {
		if err := r.removePack(ctx, op, id); err != nil {
			return err
		}
		did.Gone = append(did.Gone, id)
	}
	slices.SortFunc(did.Gone, func(a, b ID) int { return slices.Compare(a[:], b[:]) })
	return nil
}

// dropper takes packs out of index files.
type dropper struct {
	r     *Repository
	op    string
	gone  map[ID]bool
	named map[indexedPack]int // by how many files
}

// indexedPack is a pack as an index file describes it. Two that have as many blobs of it
// say the same.
type indexedPack struct {
	id    ID
	blobs int
}

// indexed is how an index file describes p.
func (p *finishedPack) indexed() indexedPack { return indexedPack{p.id, len(p.blobs)} }

// readIndexFile returns what an index file says: all of it, or nothing.
func (r *Repository) readIndexFile(ctx context.Context, op string, id ID) ([]finishedPack, error) {
	plain, err := r.loadFile(ctx, op, backend.IndexFile, id)
	if err != nil {
		return nil, err
	}
	var packs []finishedPack
	err = decodeIndex(bytes.NewReader(plain), func(pack ID, blobs []blobEntry) error {
		packs = append(packs, finishedPack{pack, slices.Clone(blobs)})
		return nil
	})
	if err != nil {
		return nil, damaged(op, backend.Handle{Type: backend.IndexFile, Name: id.String()}, "%w", err)
	}
	return packs, nil
}

// replace puts another index file in the place of one that names some of the packs, if
// it names others that no other file names. Where files cannot be removed that is so only
// the first time.
func (d *dropper) replace(ctx context.Context, id ID) error {
	all, err := d.r.readIndexFile(ctx, d.op, id)
	if err != nil {
		return err
	}
	var keep []finishedPack
	for _, p := range all {
		if !d.gone[p.id] && d.named[p.indexed()] == 1 {
			keep = append(keep, p)
			d.named[p.indexed()]++ // in the file that follows
		}
	}
	if len(keep) > 0 {
		other, err := d.r.saveFile(ctx, d.op, backend.IndexFile, encodeIndex(keep))
		if err != nil {
			return err
		}
		d.r.setLoaded(other)
	}
	for _, p := range all {
		d.named[p.indexed()]--
	}
	return d.r.removeIndexFile(ctx, d.op, id)
}

// removeIndexFile removes an index file of which nothing is needed any more.
func (r *Repository) removeIndexFile(ctx context.Context, op string, id ID) error {
	h := backend.Handle{Type: backend.IndexFile, Name: id.String()}
	if err := r.be.Remove(ctx, h); err != nil && !errors.Is(err, backend.ErrNotExist) {
		return &Error{Op: op, File: h.String(), Err: err, Hint: "what was damaged is stored a second time all the same"}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.loaded, id)
	return nil
}

// removePack removes a pack that no index names, and its parity.
func (r *Repository) removePack(ctx context.Context, op string, id ID) error {
	handles := []backend.Handle{{Type: backend.PackFile, Name: id.String()}}
	if r.opts.Parity != 0 {
		handles = append(handles, parityHandle(id))
	}
	for _, h := range handles {
		if err := r.be.Remove(ctx, h); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return &Error{Op: op, File: h.String(), Err: err}
		}
	}
	return nil
}

// addAll gives the index packs back.
func (r *Repository) addAll(packs map[ID][]blobEntry) (err error) {
	for id, blobs := range packs {
		err = errors.Join(err, r.currentIndex().add(id, blobs))
	}
	return err
}

// setIndex puts another index in the place of the one that is there. Nothing is on its
// way to be stored meanwhile.
func (r *Repository) setIndex(next func(*index) (*index, error)) error {
	x, err := next(r.currentIndex())
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idx = x
	return nil
}
