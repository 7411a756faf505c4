package backup

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/drydock-vm/drydock/internal/repository"
)

// tree collects the nodes of a folder.
type tree struct {
	w    *walker
	f    *folder
	node *repository.Node // of the folder itself; nil if it is made up
	enc  *repository.TreeEncoder
	// waiting are the nodes that are not encoded yet, in order: the content of
	// the first is being saved.
	waiting []waiting
	held    int // bytes of enc that are counted in w.held
	any     bool
}

type waiting struct {
	node    *repository.Node
	content *promise // nil for what has none
}

func newTree(w *walker, f *folder, node *repository.Node) *tree {
	return &tree{w: w, f: f, node: node, enc: repository.NewTreeEncoder()}
}

// add adds a node, and encodes those that wait no more.
func (t *tree) add(n *repository.Node, content *promise) {
	t.any = true
	t.waiting = append(t.waiting, waiting{n, content})
	for len(t.waiting) > 0 {
		if c := t.waiting[0].content; c != nil {
			select {
			case <-c.done:
			default:
				return
			}
		}
		t.encodeFirst()
	}
}

// encodeFirst encodes the first node that waits, whose content is there.
func (t *tree) encodeFirst() {
	n, content := t.waiting[0].node, t.waiting[0].content
	t.waiting[0] = waiting{} // for the garbage collector
	t.waiting = t.waiting[1:]
	switch {
	case content == nil:
	case n.Type == repository.NodeDir:
		if len(content.ids) != 1 {
			return // the folder could not be saved, and the backup is failing
		}
		n.Subtree = &content.ids[0]
	default:
		n.Content = content.ids
	}
	err := errHeld
	if t.w.held.Load()+int64(len(n.Content))*idText <= maxHeld {
		err = t.enc.Add(n)
	}
	if err != nil {
		name := ""
		if t.f.src != nil {
			name = t.f.src.Disk
		}
		t.w.report.damage(name, slices.Concat(t.f.path, []byte("/"), []byte(n.Name)), err)
		return
	}
	t.w.held.Add(int64(t.enc.Size() - t.held))
	t.held = t.enc.Size()
}

// idText is what a blob's ID takes in a tree, in bytes.
const idText = 67

// abandon gives back what the tree holds.
func (t *tree) abandon() { t.w.held.Add(-int64(t.held)) }

// finish returns the tree, which is saved when all that waits is there. It is
// nil if the folder is only on the way to what is included, and there is nothing.
func (t *tree) finish() *promise {
	if t.f.src != nil && !t.f.included && t.f.depth > 0 && !t.any {
		t.abandon()
		return nil
	}
	p := newPromise()
	select {
	// Folders get a place in the order in which they are finished, those in
	// others first: whoever waits for a place waits for folders that need none.
	case t.w.pending <- struct{}{}:
	case <-t.w.ctx.Done():
		t.abandon()
		return p
	}
	t.w.folders.Go(func() {
		defer func() { <-t.w.pending }()
		defer t.abandon()
		if err := t.save(p); err != nil {
			t.w.cancel(err)
		}
	})
	return p
}

// save waits for what the tree needs, and saves it.
func (t *tree) save(p *promise) error {
	for len(t.waiting) > 0 {
		if c := t.waiting[0].content; c != nil {
			select {
			case <-c.done:
			case <-t.w.ctx.Done():
				return context.Cause(t.w.ctx)
			}
		}
		t.encodeFirst()
	}
	id, stored, err := t.w.repo.SaveTree(t.w.ctx, t.enc.Finish())
	if err != nil {
		return fmt.Errorf("save a folder: %w", err)
	}
	t.w.report.stored(stored)
	t.count(id)
	p.ids = []repository.ID{id}
	close(p.done)
	return nil
}

// count counts a folder of a disk as new, changed or unchanged.
func (t *tree) count(id repository.ID) {
	switch old := t.f.old; {
	case t.node == nil:
	case old == nil:
		t.w.report.dir(Added)
	case old.Subtree != nil && *old.Subtree == id && (t.f.depth == 0 || sameMeta(old, t.node)):
		t.w.report.dir(Unchanged)
	default:
		t.w.report.dir(Changed)
	}
}

// oldTree is a folder of the parent snapshot, read alongside.
type oldTree struct {
	next func() (*repository.Node, bool)
	stop func()
	node *repository.Node // the next one; nil at the end
}

// before returns the folder that old is in the parent. One that cannot be read is
// empty: what is in it is read again from the guest.
func (w *walker) before(old *repository.Node) *oldTree {
	if old == nil || old.Subtree == nil {
		return &oldTree{}
	}
	tree, err := w.repo.LoadTree(w.ctx, *old.Subtree)
	if err != nil {
		if w.ctx.Err() == nil {
			w.report.warn(fmt.Errorf("the last backup: %w", err))
		}
		return &oldTree{}
	}
	o := &oldTree{}
	o.next, o.stop = iter.Pull(func(yield func(*repository.Node) bool) {
		err := tree.Walk(func(n *repository.Node) error {
			if !yield(n) {
				return errStopped
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStopped) {
			w.report.warn(fmt.Errorf("the last backup: %w", err))
		}
	})
	o.node, _ = o.next()
	return o
}

// errStopped says that a folder of the parent is not needed any further.
var errStopped = errors.New("stopped")

// find returns the node of that name, or nil. Names come in ascending order.
func (o *oldTree) find(name string) *repository.Node {
	for o.node != nil && o.node.Name < name {
		o.node, _ = o.next()
	}
	if o.node != nil && o.node.Name == name {
		return o.node
	}
	return nil
}

func (o *oldTree) close() {
	if o.stop != nil {
		o.stop()
	}
}
