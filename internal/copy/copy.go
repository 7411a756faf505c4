// Package copy brings backups to a second repository, of another key at another
// place: blobs that are missing there, and then the snapshots.
//
// Each blob's hash is verified as it is read and again as it is written, so nothing
// damaged is ever copied: a backup with damage stays where it is, and is an error,
// while the others go on. The trees of each snapshot are walked as a whole, also where
// the second repository has them: a copy that was cut off has stored some of a tree's
// contents and not others. A copy names its original as restic copy does, and what was
// copied already, by drydock or by restic, is passed over. What the second repository
// has lost, so far as that can be seen without reading all of it, is brought there again.
package copy

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/drydock-vm/drydock/internal/repository"
)

// Report is what a copy did.
type Report struct {
	Copied  int   // snapshots
	Present int   // snapshots that were there already
	Blobs   int64 // that were missing
	Bytes   int64 // of their content
	Stored  int64 // bytes that they take at the second place
	// Originals are those of the snapshots that were copied, by the IDs that they have
	// at the second place.
	Originals map[repository.ID]repository.ID
}

// Missing returns those of the snapshots that a repository does not have, neither
// themselves nor as copies, and the originals of those that it has, by their IDs.
// Snapshots there that cannot be read count for nothing: the error that comes with a
// list names them.
func Missing(ctx context.Context, to *repository.Repository, snapshots []*repository.Snapshot) ([]*repository.Snapshot, map[repository.ID]repository.ID, error) {
	all, err := to.Snapshots(ctx)
	if err != nil {
		err = fmt.Errorf("list the copies: %w", err)
	}
	if all == nil {
		return nil, nil, err
	}
	there := Originals(all)
	present := make(map[repository.ID]bool, len(there))
	for _, id := range there {
		present[id] = true
	}
	out := []*repository.Snapshot{}
	for _, s := range snapshots {
		if !present[Original(s)] {
			out = append(out, s)
		}
	}
	return out, there, err
}

// Originals returns the IDs that snapshots had first, by the ones that they have.
func Originals(all []*repository.Snapshot) map[repository.ID]repository.ID {
	out := make(map[repository.ID]repository.ID, len(all))
	for _, s := range all {
		out[s.ID] = Original(s)
	}
	return out
}

// Run copies the snapshots of from that to does not have, in the order given. The
// caller holds a lock on both, and both have their index loaded. Damage in one snapshot
// does not keep the others; what went wrong is joined. Snapshots of to that cannot be
// read count for nothing: [Missing] names them.
func Run(ctx context.Context, from, to *repository.Repository, snapshots []*repository.Snapshot) (*Report, error) {
	present, err := originals(ctx, to)
	if present == nil {
		return nil, fmt.Errorf("list the copies: %w", err)
	}
	c := &copier{from: from, to: to, walked: make(map[repository.ID]bool), room: semaphore.NewWeighted(maxHeld)}
	rep := &Report{Originals: make(map[repository.ID]repository.ID)}
	var failed []error
	for _, s := range snapshots {
		if present[Original(s)] {
			rep.Present++
			continue
		}
		id, err := c.snapshot(ctx, s)
		if err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			failed = append(failed, fmt.Errorf("copy backup %s of %q: %w", s.ID.Short(), s.Hostname, err))
			if !ofSnapshot(err) {
				break // of the place, and not of this snapshot
			}
			continue
		}
		rep.Copied++
		rep.Originals[id] = Original(s)
	}
	rep.Blobs, rep.Bytes, rep.Stored = c.blobs.Load(), c.bytes.Load(), c.stored.Load()
	return rep, errors.Join(failed...)
}

// readError is that of a blob that the first repository does not give.
type readError struct{ error }

func (e *readError) Unwrap() error { return e.error }

// ofSnapshot tells what is wrong with one snapshot from what is wrong with a place.
func ofSnapshot(err error) bool {
	var read *readError
	return errors.Is(err, repository.ErrDamaged) || errors.As(err, &read) && repository.IsDamage(err)
}

// load reads a blob of the first repository.
func (c *copier) load(ctx context.Context, id repository.ID) ([]byte, error) {
	data, err := c.from.LoadBlob(ctx, repository.DataBlob, id, nil)
	if err != nil {
		return nil, &readError{err}
	}
	return data, nil
}

func (c *copier) loadTree(ctx context.Context, id repository.ID) (*repository.Tree, error) {
	tree, err := c.from.LoadTree(ctx, id)
	if err != nil {
		return nil, &readError{err}
	}
	return tree, nil
}

// Original is the ID of the snapshot that s is a copy of, or its own.
func Original(s *repository.Snapshot) repository.ID {
	if s.Original != nil {
		return *s.Original
	}
	return s.ID
}

// originals are those of all snapshots in a repository; an error that comes with some
// names those that cannot be read.
func originals(ctx context.Context, r *repository.Repository) (map[repository.ID]bool, error) {
	all, err := r.Snapshots(ctx)
	if all == nil {
		return nil, err
	}
	ids := make(map[repository.ID]bool, len(all))
	for _, s := range all {
		ids[Original(s)] = true
	}
	return ids, err
}

// maxHeld bounds the contents that are on their way, in bytes: each is held two or three
// times, as it was stored, as it is, and as it will be stored.
const maxHeld = 2 * repository.MaxChunk

type copier struct {
	from, to             *repository.Repository
	walked               map[repository.ID]bool // trees whose contents are all there
	room                 *semaphore.Weighted    // of maxHeld
	blobs, bytes, stored atomic.Int64
}

// snapshot copies what a snapshot reaches, and then itself. It returns the ID of the copy.
func (c *copier) snapshot(ctx context.Context, s *repository.Snapshot) (repository.ID, error) {
	g, work := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	trees, err := c.walk(work, g, s.Tree)
	if gerr := g.Wait(); gerr != nil {
		err = gerr // that of walk follows from it
	}
	if err == nil {
		err = c.to.Flush(ctx)
	}
	if err != nil {
		return repository.ID{}, err
	}
	for _, id := range trees {
		c.walked[id] = true
	}
	origin := Original(s)
	twin := *s
	twin.Original, twin.Parent = &origin, nil // the parent has another name there
	return c.to.SaveSnapshot(ctx, &twin)
}

// walk copies trees, and has g copy the contents of files. It returns the trees. It
// keeps a stack of its own: guests make folders as deep as they like.
func (c *copier) walk(ctx context.Context, g *errgroup.Group, root repository.ID) ([]repository.ID, error) {
	var trees []repository.ID
	seen := map[repository.ID]bool{root: true}
	for stack := []repository.ID{root}; len(stack) > 0; {
		id := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if c.walked[id] {
			continue
		}
		tree, err := c.loadTree(ctx, id)
		if err != nil {
			return nil, err
		}
		if !c.to.HasBlob(repository.TreeBlob, id) {
			got, stored, err := c.to.SaveTree(ctx, tree)
			if err := c.saved(id, got, tree.Size(), stored, err); err != nil {
				return nil, err
			}
		}
		trees = append(trees, id)
		err = tree.Walk(func(n *repository.Node) error {
			if n.Subtree != nil && !seen[*n.Subtree] {
				seen[*n.Subtree] = true
				stack = append(stack, *n.Subtree)
			}
			for _, blob := range n.Content {
				if !c.to.HasBlob(repository.DataBlob, blob) {
					g.Go(func() error { return c.data(ctx, blob) })
				}
			}
			return ctx.Err()
		})
		if err != nil {
			return nil, err
		}
	}
	return trees, nil
}

// data copies a blob of a file.
func (c *copier) data(ctx context.Context, id repository.ID) error {
	if c.to.HasBlob(repository.DataBlob, id) {
		return nil // since it was noticed
	}
	size, _ := c.from.BlobSize(repository.DataBlob, id) // 0 where there is none
	size = min(size, maxHeld)
	if err := c.room.Acquire(ctx, size); err != nil {
		return err
	}
	defer c.room.Release(size)
	data, err := c.load(ctx, id)
	if err != nil {
		return err
	}
	got, stored, err := c.to.SaveBlob(ctx, repository.DataBlob, data)
	return c.saved(id, got, len(data), stored, err)
}

// saved counts a blob that was stored, or passes on why it was not.
func (c *copier) saved(id, got repository.ID, size int, stored int64, err error) error {
	if err != nil {
		return err
	}
	if got != id { // memory that failed between reading and writing
		return fmt.Errorf("%w: blob %s was stored as %s", repository.ErrDamaged, id.Short(), got.Short())
	}
	c.blobs.Add(1)
	c.bytes.Add(int64(size))
	c.stored.Add(stored)
	return nil
}
