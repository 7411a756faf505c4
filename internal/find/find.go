// Package find searches the backups of a machine for files, by name and by what a
// backup knows of them, without a look at their content.
//
//	err := find.Run(ctx, repo, snapshots, find.Options{Names: patterns}, func(f *find.File) error { … })
//
// All snapshots are walked at once: a folder that several hold as the same tree blob
// is read once, and a file that did not change is one [Version] of many snapshots.
// Paths come in order, so that millions can be passed on as they are found.
//
// The guest and the storage are hostile. Memory is bounded by named limits: the
// subfolders and the matches of one folder, and of those above it, in all snapshots.
// A folder that cannot be read costs that folder, and is reported.
package find

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/drydock-vm/drydock/internal/pattern"
	"github.com/drydock-vm/drydock/internal/repository"
)

// Options say which files are found: those for which all holds.
type Options struct {
	// Names match the path, as patterns match files in .gitignore; nil is any.
	Names *pattern.List
	// Types are the types of node; empty is any.
	Types []repository.NodeType
	// Newer and Older bound the time of modification, where they are not zero:
	// after Newer, before Older.
	Newer, Older time.Time
	// MinSize and MaxSize bound the size in bytes of regular files, where they are
	// not nil. Other files have none, and are not found then.
	MinSize, MaxSize *uint64
	// Damaged is called for folders that cannot be read, unless it is nil.
	Damaged func(path []byte, err error)
}

// File is one path at which something was found. Path is absolute, and guest bytes.
type File struct {
	Path     []byte
	Versions []*Version // by the first snapshot that has them
}

// Version is a file as it is in one or several snapshots: metadata and content are
// the same, but for the times of change and access.
type Version struct {
	Node      *repository.Node
	Snapshots []int // indexes of the snapshots, ascending
}

// ErrTooMuch is of backups in which folders have more in them than is held at once.
var ErrTooMuch = errors.New("too much is found in one folder, or lies in too many")

const (
	// maxDepth is how deep folders may lie in each other: as many names as the
	// longest path that Linux takes at once.
	maxDepth = 2048
	// maxRead is how many folders are read. Folders of equal content are stored
	// once, so a few blobs can be more folders than anybody can visit.
	maxRead = 1 << 23
	// maxHeld bounds the memory of subfolders and matches, in bytes. A folder of
	// 100,000 files that are all found takes about a tenth.
	maxHeld = 512 << 20
	// nodeSize is what a node takes beside its name, content and attributes.
	nodeSize = 600
	// refSize is what a subfolder takes in one of several snapshots.
	refSize = 120
)

// Run searches snapshots, which are sorted, the oldest first. The caller holds a lock
// of the repository, and has loaded the index. An error of found ends the search.
func Run(ctx context.Context, repo *repository.Repository, snapshots []*repository.Snapshot, opts Options, found func(*File) error) error {
	f := &finder[repository.ID]{ctx: ctx, from: stored{ctx, repo}, opts: opts, found: found}
	roots := trees[repository.ID]{}
	for i, s := range snapshots {
		roots.add(s.Tree, i)
	}
	return f.folder(nil, roots, 0)
}

// source has folders, by what identifies the content of one.
type source[ID comparable] interface {
	// read calls yield for all that is in a folder, and with what identifies a folder in it.
	// An error of yield ends it; damaged is told of a name that cannot be read.
	read(id ID, yield func(n *repository.Node, below ID) error, damaged func(name []byte, err error) error) error
	// isDamage reports whether an error is of one folder or file, and others can be read.
	isDamage(err error) bool
}

// stored is the folders of a repository, by their tree blobs.
type stored struct {
	ctx  context.Context
	repo *repository.Repository
}

func (s stored) read(id repository.ID, yield func(*repository.Node, repository.ID) error, _ func([]byte, error) error) error {
	tree, err := s.repo.LoadTree(s.ctx, id)
	if err != nil {
		return err
	}
	return tree.WalkBrief(func(n *repository.Node) error {
		below := repository.ID{}
		if n.Subtree != nil {
			below = *n.Subtree
		}
		return yield(n, below)
	})
}

func (stored) isDamage(err error) bool { return repository.IsDamage(err) }

// finder does one search.
type finder[ID comparable] struct {
	ctx   context.Context
	from  source[ID]
	opts  Options
	found func(*File) error
	held  int
	read  int
}

// trees are the different contents that a folder has in the snapshots.
type trees[ID comparable] []tree[ID]

type tree[ID comparable] struct {
	id        ID
	snapshots []int
}

// add adds a snapshot, or those of another folder with the same content.
func (t *trees[ID]) add(id ID, snapshots ...int) {
	for i := range *t {
		if (*t)[i].id == id {
			(*t)[i].snapshots = merged((*t)[i].snapshots, snapshots)
			return
		}
	}
	*t = append(*t, tree[ID]{id, slices.Clone(snapshots)})
}

func merged(a, b []int) []int {
	out := append(a, b...)
	slices.Sort(out)
	return slices.Compact(out)
}

// entry is a name in a folder.
type entry[ID comparable] struct {
	versions []*Version
	below    trees[ID] // where it is a folder
}

// folder searches a folder in all snapshots.
func (f *finder[ID]) folder(path []byte, in trees[ID], depth int) error {
	if depth > maxDepth {
		return f.tooDeep(path)
	}
	entries := map[string]*entry[ID]{}
	before := f.held
	defer func() { f.held = before }()
	for _, t := range in {
		if f.read++; f.read > maxRead {
			return fmt.Errorf("%w: there are more than %d folders", ErrTooMuch, maxRead)
		}
		if err := f.tree(path, t, entries); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		e := entries[name]
		below := join(path, name)
		if len(e.versions) > 0 {
			slices.SortFunc(e.versions, func(a, b *Version) int { return a.Snapshots[0] - b.Snapshots[0] })
			if err := f.found(&File{Path: append([]byte("/"), below...), Versions: e.versions}); err != nil {
				return err
			}
		}
		if len(e.below) > 0 {
			if err := f.folder(below, e.below, depth+1); err != nil {
				return err
			}
		}
		delete(entries, name)
	}
	return nil
}

// tooDeep reports a folder that is not entered.
func (f *finder[ID]) tooDeep(path []byte) error {
	if f.opts.Damaged != nil {
		f.opts.Damaged(append([]byte("/"), path...), fmt.Errorf("%w: it lies more than %d folders deep", repository.ErrLimit, maxDepth))
	}
	return nil
}

func join(path []byte, name string) []byte {
	if len(path) == 0 {
		return []byte(name)
	}
	return slices.Concat(path, []byte("/"), []byte(name))
}

// tree adds what one content of a folder has to its entries.
func (f *finder[ID]) tree(path []byte, t tree[ID], entries map[string]*entry[ID]) error {
	if f.ctx.Err() != nil {
		return context.Cause(f.ctx)
	}
	err := f.from.read(t.id, func(n *repository.Node, below ID) error {
		dir, matches := n.Type == repository.NodeDir, f.matches(join(path, n.Name), n)
		if !dir && !matches {
			return nil
		}
		e := entries[n.Name]
		if e == nil {
			e = &entry[ID]{}
			entries[n.Name] = e
			f.held += refSize + len(n.Name)
		}
		if matches {
			f.add(e, n, t.snapshots)
		}
		if dir {
			e.below.add(below, t.snapshots...)
			f.held += refSize + 8*len(t.snapshots)
		}
		if f.held > maxHeld {
			return fmt.Errorf("/%.300q: %w: more than %d bytes", path, ErrTooMuch, maxHeld)
		}
		return nil
	}, func(name []byte, err error) error { return f.damaged(join(path, string(name)), err) })
	return f.damaged(path, err)
}

// add adds a version, or snapshots to one that is there.
func (f *finder[ID]) add(e *entry[ID], n *repository.Node, snapshots []int) {
	for _, v := range e.versions {
		if same(v.Node, n) {
			v.Snapshots = merged(v.Snapshots, snapshots)
			return
		}
	}
	e.versions = append(e.versions, &Version{Node: n, Snapshots: slices.Clone(snapshots)})
	f.held += nodeSize + len(n.Content)*len(repository.ID{}) + 8*len(snapshots)
	for _, x := range n.Xattrs {
		f.held += len(x.Name) + len(x.Value)
	}
}

// matches reports whether a file is one that is sought.
func (f *finder[ID]) matches(path []byte, n *repository.Node) bool {
	o := &f.opts
	switch {
	case o.Names != nil && o.Names.Match(path, n.Type == repository.NodeDir) != pattern.Match,
		len(o.Types) > 0 && !slices.Contains(o.Types, n.Type),
		!o.Newer.IsZero() && !n.ModTime.After(o.Newer),
		!o.Older.IsZero() && !n.ModTime.Before(o.Older),
		(o.MinSize != nil || o.MaxSize != nil) && n.Type != repository.NodeFile,
		o.MinSize != nil && n.Size < *o.MinSize,
		o.MaxSize != nil && n.Size > *o.MaxSize:
		return false
	}
	return true
}

// same reports whether two nodes of one path are one version of it. What is in a
// folder is not asked: its own attributes are its version.
func same(a, b *repository.Node) bool {
	return a.Type == b.Type && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Size == b.Size &&
		(a.Type == repository.NodeDir || a.ModTime.Equal(b.ModTime)) &&
		a.LinkTarget == b.LinkTarget && a.Device == b.Device && slices.Equal(a.Content, b.Content) &&
		slices.EqualFunc(a.Xattrs, b.Xattrs, func(x, y repository.Xattr) bool {
			return x.Name == y.Name && bytes.Equal(x.Value, y.Value)
		})
}

// damaged reports an error that one folder or file is to blame for, and returns any other.
func (f *finder[ID]) damaged(path []byte, err error) error {
	switch {
	case err == nil:
		return nil
	case f.ctx.Err() != nil:
		return context.Cause(f.ctx)
	case errors.Is(err, ErrTooMuch):
		return err
	}
	if f.from.isDamage(err) {
		if f.opts.Damaged != nil {
			f.opts.Damaged(append([]byte("/"), path...), err)
		}
		return nil
	}
	return err
}
