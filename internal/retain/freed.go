package retain

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/drydock-vm/drydock/internal/repository"
)

// Freed returns about how many bytes a prune could give back if snapshots were
// removed: those of the blobs that nothing else in the repository needs, of
// backups of other VMs and other programs too. It reads every tree once, and
// takes one bit for each blob and some 40 bytes for each folder that waits to be
// read.
//
// A snapshot or a tree that cannot be read is an error: what it needs is not
// known.
func Freed(ctx context.Context, repo *repository.Repository, snapshots []*repository.Snapshot) (int64, error) {
	if len(snapshots) == 0 {
		return 0, nil
	}
	all, err := repo.Snapshots(ctx)
	if err == nil {
		err = repo.LoadIndex(ctx)
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("what would be freed cannot be told: %w", err)
	}
	goes := make(map[repository.ID]bool)
	for _, s := range snapshots {
		goes[s.ID] = true
	}
	seen := repo.NewBlobSet()
	kept := slices.DeleteFunc(slices.Clone(all), func(s *repository.Snapshot) bool { return goes[s.ID] })
	if _, err := mark(ctx, repo, seen, kept); err != nil {
		return 0, fmt.Errorf("what the other backups need cannot be told: %w", err)
	}
	freed, err := mark(ctx, repo, seen, snapshots)
	if err != nil {
		return 0, fmt.Errorf("what would be freed cannot be told: %w", err)
	}
	return freed, nil
}

// mark adds what the snapshots reach to seen, and returns the bytes of what was
// not there before. Trees that are in seen are not read again: so is what they
// reach.
func mark(ctx context.Context, repo *repository.Repository, seen *repository.BlobSet, snapshots []*repository.Snapshot) (int64, error) {
	m := marker{repo: repo, seen: seen}
	for _, s := range snapshots {
		if err := m.add(repository.TreeBlob, s.Tree); err != nil {
			return 0, fmt.Errorf("snapshot %s: %w", s.ID.Short(), err)
		}
		for len(m.todo) > 0 {
			if err := m.step(ctx); err != nil {
				return 0, fmt.Errorf("snapshot %s: %w", s.ID.Short(), err)
			}
		}
	}
	return m.bytes, nil
}

type marker struct {
	repo  *repository.Repository
	seen  *repository.BlobSet
	todo  []repository.ID // trees that are in seen, and not yet read
	bytes int64
}

// maxTrees is how many bytes of trees are read at once: many of the usual ones, or one of
// any size.
const maxTrees = 32 << 20

// step reads a few trees at once. The last to be found comes first, so that few
// wait.
func (m *marker) step(ctx context.Context) error {
	n, bytes := 0, int64(0)
	for _, id := range slices.Backward(m.todo) {
		size, _ := m.repo.BlobSize(repository.TreeBlob, id) // is there: m.add has seen it
		if bytes += size; n > 0 && bytes > maxTrees || n == runtime.GOMAXPROCS(0) {
			break
		}
		n++
	}
	ids := slices.Clone(m.todo[len(m.todo)-n:])
	m.todo = m.todo[:len(m.todo)-n]
	trees := make([]*repository.Tree, n)
	g, gctx := errgroup.WithContext(ctx)
	for i, id := range ids {
		g.Go(func() (err error) {
			trees[i], err = m.repo.LoadTree(gctx, id)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, tree := range trees {
		if err := tree.WalkPieces(m.piece, m.node); err != nil {
			return err
		}
	}
	return nil
}

// piece adds what a file is made of.
func (m *marker) piece(id repository.ID) error { return m.add(repository.DataBlob, id) }

// node adds what a folder is made of.
func (m *marker) node(n *repository.Node) error {
	if n.Subtree == nil {
		return nil
	}
	return m.add(repository.TreeBlob, *n.Subtree)
}

func (m *marker) add(t repository.BlobType, id repository.ID) error {
	stored, isNew, known := m.seen.Add(t, id)
	if !known {
		if t == repository.DataBlob {
			return nil // it takes no space; that it is missing is for a verify to say
		}
		return fmt.Errorf("tree %s: %w", id.Short(), repository.ErrBlobNotFound)
	}
	if !isNew {
		return nil
	}
	m.bytes += stored
	if t == repository.TreeBlob {
		m.todo = append(m.todo, id)
	}
	return nil
}
