package verify

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/drydock-vm/drydock/internal/repository"
)

// maxTrees is how many bytes of folders are read at once: many of the usual ones, or one
// of any size. That with a disk of 15 TiB has 140 MB, of which half is held.
const maxTrees = 32 << 20

// structure reads every folder that the snapshots reach, each different one once,
// and notes the blobs that are lost.
//
// It goes level by level, so that neither a long chain of folders nor a folder that
// every other one refers to costs more than the number of different folders.
func (c *checker) structure(ctx context.Context, snapshots []*repository.Snapshot) error {
	seen := map[repository.ID]bool{}
	var mu sync.Mutex // guards seen, next and c.done
	var level, next []repository.ID
	visit := func(id repository.ID) {
		if !seen[id] {
			seen[id] = true
			next = append(next, id)
		}
	}
	for _, s := range snapshots {
		visit(s.Tree)
	}
	for len(next) > 0 {
		level, next = next, nil
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(runtime.GOMAXPROCS(0))
		for _, id := range level {
			g.Go(func() error {
				subtrees, err := c.folder(gctx, id)
				mu.Lock()
				defer mu.Unlock()
				for _, sub := range subtrees {
					visit(sub)
				}
				c.done.Folders++
				c.opts.Progress(c.done)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	c.report.Folders = len(seen)
	return nil
}

// need notes which packs are to be looked at, where not all are.
func (c *checker) need(b repository.Blob) {
	if c.needed == nil {
		return
	}
	packs := c.repo.PackOf(b)
	c.needMu.Lock()
	defer c.needMu.Unlock()
	for _, pack := range packs {
		c.needed[pack] = true
	}
}

// folder reads one folder, and returns those in it. What is lost of it, or wrong with it,
// is noted.
func (c *checker) folder(ctx context.Context, id repository.ID) (subtrees []repository.ID, err error) {
	b := repository.Blob{Type: repository.TreeBlob, ID: id}
	size, _ := c.repo.BlobSize(b.Type, id) // 0 where there is none
	size = min(size, maxTrees)
	if err := c.trees.Acquire(ctx, size); err != nil {
		return nil, err
	}
	defer c.trees.Release(size)
	tree, err := c.repo.LoadTree(ctx, id)
	if err != nil && c.opts.Repair && repository.IsDamage(err) {
		tree, err = c.mendTree(ctx, id)
	}
	c.need(b) // wherever it is now
	if err == nil {
		file := fileCheck{checker: c}
		err = tree.WalkPieces(func(id repository.ID) error {
			b := repository.Blob{Type: repository.DataBlob, ID: id}
			c.need(b)
			if !file.piece(b) && c.opts.Repair {
				c.broken.miss(b)
			}
			return nil
		}, func(n *repository.Node) error {
			if n.Subtree != nil {
				subtrees = append(subtrees, *n.Subtree)
			}
			if file.end(n) != nil {
				c.hit.Store(true)
			}
			return nil
		})
	}
	if err == nil {
		return subtrees, nil
	}
	if !repository.IsDamage(err) {
		return subtrees, err
	}
	c.lost.add(b, err)
	return subtrees, nil
}

// fileCheck finds out whether the files of a folder come back, one after the other, as far
// as is known.
type fileCheck struct {
	*checker
	pieces int
	size   uint64
	first  int   // which piece is the first that is lost
	err    error // why it is
}

// piece takes a piece of the next file, and reports whether an index names it.
func (f *fileCheck) piece(b repository.Blob) (known bool) {
	f.pieces++
	length, known := f.repo.BlobSize(b.Type, b.ID)
	f.size += uint64(length) // at most 2^23 pieces of 2^32 bytes fit into a folder
	if f.err != nil {
		return known
	}
	f.first, f.err = f.pieces, f.lost.find(b)
	if f.err == nil && !known {
		f.err = fmt.Errorf("%w: %s", repository.ErrBlobNotFound, b.ID.Short())
	}
	return known
}

// end says why the file, whose pieces were taken, does not come back: nil if it does.
func (f *fileCheck) end(n *repository.Node) error {
	was := *f
	*f = fileCheck{checker: f.checker}
	if was.err != nil {
		return fmt.Errorf("piece %d of %d: %w", was.first, was.pieces, was.err)
	}
	if n.Type == repository.NodeFile && was.size != n.Size {
		return fmt.Errorf("%w: its pieces have %d bytes, and it should have %d", repository.ErrDamaged, was.size, n.Size)
	}
	return nil
}
