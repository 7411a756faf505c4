package verify

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/drydock-vm/drydock/internal/repository"
)

// structure reads every folder that the snapshots reach, each different one once,
// and notes the blobs that are lost.
//
// It goes level by level, so that neither a long chain of folders nor a folder that
// every other one refers to costs more than the number of different folders.
func (c *checker) structure(ctx context.Context, snapshots []*repository.Snapshot) error {
	seen := map[repository.ID]bool{}
	var mu sync.Mutex // guards seen, next, c.needed and c.done
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
				f, err := c.folder(gctx, id)
				mu.Lock()
				defer mu.Unlock()
				for _, sub := range f.subtrees {
					visit(sub)
				}
				c.need(repository.Blob{Type: repository.TreeBlob, ID: id})
				for _, b := range f.content {
					c.need(b)
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
	for _, pack := range c.repo.PackOf(b) {
		c.needed[pack] = true
	}
}

// folderParts is what a folder refers to.
type folderParts struct {
	subtrees []repository.ID
	content  []repository.Blob // only where packs are chosen by it
}

// folder reads one folder. What is lost of it, or wrong with it, is noted.
func (c *checker) folder(ctx context.Context, id repository.ID) (f folderParts, err error) {
	tree, err := c.repo.LoadTree(ctx, id)
	if err != nil && c.opts.Repair && repository.IsDamage(err) {
		tree, err = c.mendTree(ctx, id)
	}
	if err == nil {
		err = tree.Walk(func(n *repository.Node) error {
			if n.Subtree != nil {
				f.subtrees = append(f.subtrees, *n.Subtree)
			}
			if c.needed != nil {
				for _, id := range n.Content {
					f.content = append(f.content, repository.Blob{Type: repository.DataBlob, ID: id})
				}
			}
			if cause := c.fileDamage(n); cause != nil {
				c.hit.Store(true)
				c.missing(n)
			}
			return nil
		})
	}
	if err == nil {
		return f, nil
	}
	if !repository.IsDamage(err) {
		return f, err
	}
	c.lost.add(repository.Blob{Type: repository.TreeBlob, ID: id}, err)
	return f, nil
}

// missing notes the pieces of a file that no index names, if a repair is to bring them
// back.
func (c *checker) missing(n *repository.Node) {
	for _, id := range n.Content {
		if b := (repository.Blob{Type: repository.DataBlob, ID: id}); c.opts.Repair && len(c.repo.PackOf(b)) == 0 {
			c.broken.miss(b)
		}
	}
}

// fileDamage says why a file does not come back, as far as is known: nil if it
// does.
func (c *checker) fileDamage(n *repository.Node) error {
	var size uint64
	for i, id := range n.Content {
		err := c.lost.find(repository.Blob{Type: repository.DataBlob, ID: id})
		length, ok := c.repo.BlobSize(repository.DataBlob, id)
		if err == nil && !ok {
			err = fmt.Errorf("%w: %s", repository.ErrBlobNotFound, id.Short())
		}
		if err != nil {
			return fmt.Errorf("piece %d of %d: %w", i+1, len(n.Content), err)
		}
		size += uint64(length) // at most 2^23 pieces of 2^32 bytes fit into a folder
	}
	if n.Type == repository.NodeFile && size != n.Size {
		return fmt.Errorf("%w: its pieces have %d bytes, and it should have %d", repository.ErrDamaged, size, n.Size)
	}
	return nil
}
