package repository

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

const (
	// maxOpen is how many packs are being filled at once: one of each type.
	maxOpen = 2
	// fewUploads and manyUploads bound [Options].Uploads. Each pack holds its memory
	// until it is durable; who needs one more waits.
	fewUploads, manyUploads = 2, 4
	// largeIndex is the number of blobs from which on fewUploads have to do: what more of
	// them would take is the memory of the index then.
	largeIndex = 100_000
	// packSlack is room for the blob that fills a pack and for the header, as
	// large as they mostly are. A pack that needs more grows.
	packSlack = 2 << 20
	// indexBlobs is how many blobs go into one index file, as restic has it.
	// A long backup that dies has then lost the knowledge of few of them.
	indexBlobs = 50_000
	// indexPacks bounds the same for large blobs: 4 GiB of 16 MiB packs.
	indexPacks = 256
)

// blobKey names a blob.
type blobKey struct {
	t  BlobType
	id ID
}

// saver collects blobs into packs and packs into index files.
//
// A blob is known, and not stored twice, from the moment that the first caller
// claims it: others wait until it is in a packer, which takes no longer than
// compressing it themselves. A pack that cannot be stored breaks the saver for
// good, since callers were already told that their blobs are known.
type saver struct {
	flushMu sync.Mutex // held during Flush
	indexMu sync.Mutex // held while an index file is written

	mu   sync.Mutex // guards what follows
	open [2]*packer // by BlobType
	// pending are the sizes of blobs on their way, from the call that saves one
	// until the index has it: a pack has room for 100,000 small ones.
	pending map[blobKey]int64
	// claimed are those of them that are in no packer yet; a channel is closed
	// when its blob is, or was given up.
	claimed   map[blobKey]chan struct{}
	uploading map[*packer]struct{}
	unindexed []finishedPack
	spare     [][]byte      // buffers of packs that were stored
	packs     int           // held in memory: open ones, and those that are being stored
	stored    chan struct{} // closed when that are fewer, and made anew
	added     Added
	err       error // why nothing can be saved any more
}

func (s *saver) init() {
	s.stored = make(chan struct{})
	s.pending = make(map[blobKey]int64)
	s.claimed = make(map[blobKey]chan struct{})
	s.uploading = make(map[*packer]struct{})
}

// fail records the first reason why nothing can be saved any more.
func (s *saver) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

func (s *saver) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// SaveBlob stores data, unless the repository has it, and returns its ID and the
// bytes that it takes, 0 when it was there. It compresses and encrypts in the
// caller's goroutine: call it from as many as there are cores, or use
// [Repository.SaveStream]. It waits while the storage is slower than the caller.
// Data is not kept.
//
// The blob is durable, and may be referred to, after the next [Repository.Flush].
// When something could not be stored, this and all later calls fail: open the
// repository again.
func (r *Repository) SaveBlob(ctx context.Context, t BlobType, data []byte) (id ID, stored int64, err error) {
	if err := r.writable(); err != nil {
		return ID{}, 0, err
	}
	if err := checkSize(len(data)); err != nil {
		return ID{}, 0, err
	}
	id = Hash(data)
	mine, err := r.claim(ctx, blobKey{t, id}, int64(len(data)))
	if err != nil || !mine {
		return id, 0, err
	}
	buf := r.codec.buffer()
	sealed, compressed := r.codec.sealBlob(*buf, t, data)
	stored, err = r.add(ctx, t, id, sealed, len(data), compressed)
	if len(sealed) < r.opts.PackSize { // else it is a pack by now
		*buf = sealed
		r.codec.release(buf)
	}
	return id, stored, err
}

// checkSize refuses a blob that is too large.
func checkSize(n int) error {
	if n > maxBlobSize {
		return &Error{Op: "save blob", Err: fmt.Errorf("%w: %d bytes, and the limit is %d", ErrLimit, n, maxBlobSize), Hint: "a folder can have about a million entries"}
	}
	return nil
}

// add adds a claimed and sealed blob to a pack. It keeps what is as large as a pack.
func (r *Repository) add(ctx context.Context, t BlobType, id ID, sealed []byte, size int, compressed bool) (stored int64, err error) {
	stored, full, err := r.pack(ctx, t, id, sealed, size, compressed)
	r.settle(blobKey{t, id}, err)
	if full != nil {
		// Whatever becomes of this caller: the pack has the blobs of others too.
		go r.store(context.WithoutCancel(ctx), full)
	}
	return stored, err
}

// claim reports whether the caller is to save the blob, and then to settle it; if
// not it is known. It waits while another caller is about to make it known.
func (r *Repository) claim(ctx context.Context, key blobKey, size int64) (mine bool, err error) {
	for {
		mine, other, err := r.tryClaim(key, size)
		if err != nil || other == nil {
			return mine, err
		}
		select {
		case <-other:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// tryClaim returns mine if the caller is to save the blob, other if another
// caller is at it, and neither if it is known.
func (r *Repository) tryClaim(key blobKey, size int64) (mine bool, other <-chan struct{}, err error) {
	s := &r.saver
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false, nil, s.err
	}
	if other := s.claimed[key]; other != nil {
		return false, other, nil
	}
	if _, ok := s.pending[key]; ok {
		return false, nil, nil
	}
	if _, ok := r.currentIndex().size(key.t, key.id); ok {
		return false, nil, nil
	}
	s.pending[key], s.claimed[key] = size, make(chan struct{})
	return true, nil, nil
}

// settle says that a claimed blob is in a packer, or lets another caller save it.
func (r *Repository) settle(key blobKey, err error) {
	s := &r.saver
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(s.pending, key)
	}
	close(s.claimed[key])
	delete(s.claimed, key)
}

// pack adds a sealed blob to the open pack, and returns what it takes there. A
// pack that is full then is the caller's to upload. A blob that is as large as a pack is
// one by itself, and not copied.
func (r *Repository) pack(ctx context.Context, t BlobType, id ID, sealed []byte, size int, compressed bool) (stored int64, full *packer, err error) {
	s := &r.saver
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := r.packer(ctx, t, len(sealed) >= r.opts.PackSize)
	if err != nil {
		return 0, nil, err
	}
	e, err := p.add(id, sealed, size, compressed)
	if err != nil {
		return 0, nil, err
	}
	if p.full(r.opts.PackSize) {
		s.detach(p)
		full = p
	}
	stored = int64(e.length) + int64(e.entrySize())
	s.added.count(t, int64(size), stored)
	return stored, full, nil
}

// packer returns the open pack, or a new one for a blob that is alone in it. It waits
// while there are as many packs as there may be. The caller holds s.mu, and gives it up
// meanwhile.
func (r *Repository) packer(ctx context.Context, t BlobType, alone bool) (*packer, error) {
	s := &r.saver
	for {
		switch {
		case s.err != nil:
			return nil, s.err
		case s.open[t] != nil && !alone:
			return s.open[t], nil
		case s.packs < r.maxPacks():
			return s.newPacker(t, alone, r.opts.PackSize), nil
		}
		stored := s.stored
		s.mu.Unlock()
		select {
		case <-stored: // somebody else may be faster
		case <-ctx.Done():
		}
		s.mu.Lock()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// maxPacks is how many packs are held at once.
func (r *Repository) maxPacks() int {
	if r.currentIndex().blobs() >= largeIndex {
		return maxOpen + fewUploads
	}
	return maxOpen + r.opts.Uploads
}

// newPacker returns a new pack. The caller holds s.mu.
func (s *saver) newPacker(t BlobType, alone bool, size int) *packer {
	p := &packer{t: t, done: make(chan struct{})}
	s.packs++
	switch n := len(s.spare); {
	case alone:
		return p
	case n > 0:
		p.buf, s.spare = s.spare[n-1][:0], s.spare[:n-1]
	default:
		p.buf = make([]byte, 0, size+packSlack)
	}
	s.open[t] = p
	return p
}

// detach makes p one that is being uploaded. The caller holds s.mu.
func (s *saver) detach(p *packer) {
	if s.open[p.t] == p {
		s.open[p.t] = nil
	}
	s.uploading[p] = struct{}{}
}

// store stores a pack, gives the index its blobs, and makes room for another pack.
func (r *Repository) store(ctx context.Context, p *packer) {
	s := &r.saver
	defer close(p.done)
	defer s.forget()
	err := r.storePack(ctx, p)
	s.mu.Lock()
	delete(s.uploading, p)
	if err != nil && s.err == nil {
		s.err = err
	}
	if len(s.spare) < maxOpen+fewUploads && cap(p.buf) <= 2*r.opts.PackSize {
		s.spare = append(s.spare, p.buf)
	}
	p.buf = nil
	blobs := 0
	for i := range s.unindexed {
		blobs += len(s.unindexed[i].blobs)
	}
	enough := s.err == nil && (blobs >= indexBlobs || len(s.unindexed) >= indexPacks)
	s.mu.Unlock()
	if enough {
		if err := r.saveIndex(ctx); err != nil {
			s.fail(err)
		}
	}
}

// forget makes room for another pack.
func (s *saver) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packs--
	close(s.stored)
	s.stored = make(chan struct{})
}

// storePack stores a pack, and gives the index its blobs.
func (r *Repository) storePack(ctx context.Context, p *packer) error {
	if err := r.saver.failure(); err != nil {
		return err
	}
	p.finish(r.codec.key)
	id := Hash(p.buf)
	h := backend.Handle{Type: backend.PackFile, Name: id.String()}
	if err := r.be.Save(ctx, h, p.buf); err != nil {
		return &Error{Op: "save pack", File: h.String(), Err: err, Hint: "nothing that was stored before is harmed; run it again when the storage works"}
	}
	if err := r.saveParity(ctx, id, p.buf); err != nil {
		return err
	}
	s := &r.saver
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := r.currentIndex().add(id, p.blobs); err != nil {
		return err
	}
	s.unindexed = append(s.unindexed, finishedPack{id, p.blobs})
	for i := range p.blobs {
		delete(s.pending, blobKey{p.t, p.blobs[i].id})
	}
	return nil
}

// saveIndex makes index files of the packs that are in none yet.
func (r *Repository) saveIndex(ctx context.Context) error {
	s := &r.saver
	s.indexMu.Lock()
	defer s.indexMu.Unlock()
	s.mu.Lock()
	packs := slices.Clone(s.unindexed)
	s.mu.Unlock()
	for len(packs) > 0 {
		n, blobs := 0, 0
		for n < len(packs) && n < indexPacks && (n == 0 || blobs+len(packs[n].blobs) <= indexBlobs) {
			blobs += len(packs[n].blobs)
			n++
		}
		plain := encodeIndex(packs[:n])
		id, err := r.saveFile(ctx, "save index", backend.IndexFile, plain)
		if err != nil {
			return err
		}
		r.setLoaded(id)
		s.mu.Lock()
		s.unindexed = slices.Delete(s.unindexed, 0, n) // others only append
		s.mu.Unlock()
		packs = packs[n:]
	}
	return nil
}

// Flush makes everything that was saved before it durable: packs first, then
// their index. Only then may a snapshot reach it. When it fails, a snapshot must
// not be saved. It gives back the memory that packs were made in.
func (r *Repository) Flush(ctx context.Context) error {
	s := &r.saver
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	for _, p := range r.detachOpen() {
		go r.store(context.WithoutCancel(ctx), p)
	}
	for _, p := range s.allUploads() {
		select {
		case <-p.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := s.failure(); err != nil {
		return err
	}
	err := r.saveIndex(ctx)
	if err != nil && ctx.Err() == nil {
		s.fail(err)
	}
	s.rest()
	return err
}

// rest gives back memory that is needed only as long as something is saved.
func (s *saver) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spare = nil
	if len(s.pending) == 0 { // a map does not shrink
		s.pending = make(map[blobKey]int64)
	}
}

// flushed reports whether a blob is stored, and in an index file that is.
func (r *Repository) flushed(t BlobType, id ID) bool {
	s := &r.saver
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.unindexed {
		for i := range p.blobs {
			if p.blobs[i].id == id && p.blobs[i].blobType() == t {
				return false
			}
		}
	}
	_, ok := r.currentIndex().size(t, id)
	return ok
}

// detachOpen takes the packs that are being filled.
func (r *Repository) detachOpen() []*packer {
	s := &r.saver
	s.mu.Lock()
	defer s.mu.Unlock()
	var packs []*packer
	for _, p := range s.open {
		if p != nil {
			s.detach(p)
			packs = append(packs, p)
		}
	}
	return packs
}

func (s *saver) allUploads() []*packer {
	s.mu.Lock()
	defer s.mu.Unlock()
	packs := make([]*packer, 0, len(s.uploading))
	for p := range s.uploading {
		packs = append(packs, p)
	}
	return packs
}
