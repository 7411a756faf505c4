package btrfs

// tree is one of the filesystem's trees, by its root.
type tree struct {
	*volume
	name  string // for errors: "extent tree"
	owner uint64
	root  pointer
}

// walk is a place in a tree. It is used for one pass by one goroutine.
type walk struct {
	tree  *tree
	steps [maxLevel + 1]step // by level, the leaf first
}

type step struct {
	node node
	slot int
	end  key // all keys of the node are below
}

// seek goes to the first item whose key is not below k.
func (t *tree) seek(w *walk, k key) error {
	if err := t.descend(w, k); err != nil {
		return err
	}
	leaf := &w.steps[0]
	leaf.slot = leaf.node.search(k)
	if leaf.slot == leaf.node.count() {
		return w.nextLeaf()
	}
	return nil
}

// seekBefore goes to the last item whose key is not above k. The walk is not
// valid where there is none.
func (t *tree) seekBefore(w *walk, k key) error {
	if err := t.descend(w, k); err != nil {
		return err
	}
	leaf := &w.steps[0]
	leaf.slot = leaf.node.search(k)
	if leaf.slot == leaf.node.count() || leaf.node.key(leaf.slot) != k {
		// What is before k is in this leaf, if it is anywhere: all keys of a
		// leaf but the first of all are below k.
		leaf.slot--
	}
	if leaf.slot < 0 {
		*leaf = step{}
	}
	return nil
}

// get returns the content of the item with key k. Where there is none, its place is
// the leaf that would have it.
func (t *tree) get(k key) (value, error) {
	var w walk
	if err := t.descend(&w, k); err != nil {
		return value{}, err
	}
	leaf := w.steps[0].node
	if i := leaf.search(k); i < leaf.count() && leaf.key(i) == k {
		return leaf.value(i), nil
	}
	return value{at: leaf.address()}, nil
}

// descend goes from the root to the leaf that would hold k.
func (t *tree) descend(w *walk, k key) error {
	w.tree = t
	n, err := t.read(&expectation{pointer: t.root, owner: t.owner, name: t.name, end: maxKey, isRoot: true})
	if err != nil {
		return err
	}
	end := maxKey
	for level := t.root.level; ; level-- {
		w.steps[level] = step{node: n, end: end}
		if level == 0 {
			return nil
		}
		slot := n.search(k)
		if slot == n.count() || slot > 0 && n.key(slot) != k {
			slot--
		}
		if n, end, err = w.down(level, slot); err != nil {
			return err
		}
	}
}

// down reads the child in a slot of the node at a level.
func (w *walk) down(level uint8, slot int) (node, key, error) {
	s := &w.steps[level]
	s.slot = slot
	end := s.end
	if slot+1 < s.node.count() {
		end = s.node.key(slot + 1)
	}
	n, err := w.tree.read(&expectation{
		pointer: s.node.child(slot), owner: w.tree.owner, name: w.tree.name, first: s.node.key(slot), end: end,
	})
	return n, end, err
}

// valid reports whether the walk stands at an item.
func (w *walk) valid() bool { return w.steps[0].node != nil }

func (w *walk) key() key     { return w.steps[0].node.key(w.steps[0].slot) }
func (w *walk) value() value { return w.steps[0].node.value(w.steps[0].slot) }

// at is where the walk stands, for errors: behind the last item, the root.
func (w *walk) at() int64 {
	if !w.valid() {
		return offsetOf(w.tree.root.block)
	}
	return w.steps[0].node.address()
}

// next goes to the next item, or makes the walk invalid.
func (w *walk) next() error {
	leaf := &w.steps[0]
	if leaf.slot++; leaf.slot < leaf.node.count() {
		return nil
	}
	return w.nextLeaf()
}

// nextLeaf goes to the first item of the next leaf, or makes the walk invalid.
// Blocks cannot come twice: each starts with the key that its parent has for it,
// and ends before the next.
func (w *walk) nextLeaf() error {
	level := uint8(1)
	for ; level <= w.tree.root.level; level++ {
		if s := &w.steps[level]; s.slot+1 < s.node.count() {
			break
		}
	}
	if level > w.tree.root.level {
		w.steps[0] = step{}
		return nil
	}
	slot := w.steps[level].slot + 1
	for ; level > 0; level-- {
		n, end, err := w.down(level, slot)
		if err != nil {
			w.steps[0] = step{}
			return err
		}
		w.steps[level-1] = step{node: n, end: end}
		slot = 0
	}
	return nil
}
