package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

const (
	// longContent is how many blobs a file has whose list is better held as IDs than
	// as JSON, which takes twice as much.
	longContent = 4096
	// largeTree is the size in bytes above which a tree is held compressed.
	largeTree = 4 << 20
)

// Tree is the bytes of a tree blob, held in the form that takes least memory: that of a
// disk of 16 TiB is 140 MB of JSON. It is safe for concurrent use.
type Tree struct {
	text  []byte // as they are, without what lists has to be put in
	lists []contentList

	// packed is the bytes compressed by zstd, and nil if they are not. They are what
	// the blob's ID says.
	packed []byte
	size   int // of what packed has
}

// contentList is the content of a file, which belongs into the text of a tree.
type contentList struct {
	at  int
	ids []ID
}

// size is how many bytes it is as JSON.
func (l *contentList) size() int { return len(l.ids)*(quotedID+1) - 1 }

func listsSize(lists []contentList) (sum int) {
	for i := range lists {
		sum += lists[i].size()
	}
	return sum
}

// NewTree is the tree that has these bytes. Nothing about them is checked.
func NewTree(data []byte) *Tree { return &Tree{text: data} }

// Size is the number of bytes.
func (t *Tree) Size() int {
	if t.packed != nil {
		return t.size
	}
	return len(t.text) + listsSize(t.lists)
}

// whole reports whether the text is all.
func (t *Tree) whole() bool { return t.packed == nil && t.lists == nil }

// open returns a reader of the bytes.
func (t *Tree) open() (io.Reader, error) {
	if t.packed != nil {
		dec, err := newStream(t.packed)
		return io.LimitReader(dec, int64(t.size)+1), err
	}
	var parts []io.Reader
	from := 0
	for _, l := range t.lists {
		parts = append(parts, bytes.NewReader(t.text[from:l.at]), &idReader{ids: l.ids})
		from = l.at
	}
	return io.MultiReader(append(parts, bytes.NewReader(t.text[from:]))...), nil
}

// idReader reads IDs as the JSON in an array.
type idReader struct {
	ids  []ID
	next int
	text [1 + quotedID]byte // of one, behind its comma
	rest []byte             // of text
}

func (r *idReader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(r.rest) == 0 {
			if r.next == len(r.ids) {
				return n, io.EOF
			}
			r.rest = appendID(append(r.text[:0], ','), r.ids[r.next])
			if r.next == 0 {
				r.rest = r.rest[1:]
			}
			r.next++
		}
		k := copy(p[n:], r.rest)
		n, r.rest = n+k, r.rest[k:]
	}
	return n, nil
}

// writeTo writes the bytes, and returns how many.
func (t *Tree) writeTo(w io.Writer) (int64, error) {
	rd, err := t.open()
	if err != nil {
		return 0, err
	}
	return io.CopyBuffer(struct{ io.Writer }{w}, rd, make([]byte, treeWindow))
}

// hash returns the ID of the bytes, and how many they are.
func (t *Tree) hash() (ID, int64, error) {
	h := sha256.New()
	n, err := t.writeTo(h)
	return ID(h.Sum(nil)), n, err
}

// Walk calls yield for each node of the folder. It refuses names that could leave the
// folder, names that come twice or out of order, and nodes that cannot be what they say
// they are, with [ErrDamaged]. Fields that it does not know it passes over. It stops at
// the first error of yield, and returns that.
func (t *Tree) Walk(yield func(*Node) error) error { return t.WalkPieces(nil, yield) }

// WalkPieces does what Walk does, and calls piece for each blob of a file's content, in
// order, before the node itself, which has no Content but only how Long it is: that of
// a disk of 15 TiB would take 64 MB.
func (t *Tree) WalkPieces(piece func(ID) error, yield func(*Node) error) error {
	if t.whole() {
		return (&treeReader{buf: t.text, piece: piece}).walk(yield)
	}
	rd, err := t.open()
	if err != nil {
		return err
	}
	r := newTreeReader(rd, t.Size())
	r.piece = piece
	return r.walk(yield)
}

// WalkBrief does what Walk does, for who only asks whether contents are the same: that of
// many blobs is one hash of all of them, and Long says so.
func (t *Tree) WalkBrief(yield func(*Node) error) error {
	var b brief
	return t.WalkPieces(b.add, func(n *Node) error {
		n.Content = b.content(n)
		return yield(n)
	})
}

// brief is the content of a file, or what it is told by if it is long.
type brief struct {
	ids  []ID
	hash hash.Hash // of those before ids, if there are some
}

func (b *brief) add(id ID) error {
	if b.ids = append(b.ids, id); len(b.ids) == longContent {
		b.sum()
	}
	return nil
}

// sum moves all that is in ids into the hash.
func (b *brief) sum() {
	if b.hash == nil {
		b.hash = sha256.New()
		b.hash.Write([]byte("long content")) // what a blob has that is only the IDs has another
	}
	for i := range b.ids {
		b.hash.Write(b.ids[i][:])
	}
	b.ids = b.ids[:0]
}

// content returns the content of n, and makes b ready for the next one.
func (b *brief) content(n *Node) (ids []ID) {
	switch {
	case b.hash != nil:
		b.sum()
		ids = []ID{ID(b.hash.Sum(nil))}
		b.hash = nil
	case n.Content != nil:
		ids = append(make([]ID, 0, len(b.ids)), b.ids...)
		n.Long = 0
	}
	b.ids = b.ids[:0]
	return ids
}

// Nodes returns all nodes of the folder, or the error that Walk has.
func (t *Tree) Nodes() ([]Node, error) {
	var nodes []Node
	err := t.Walk(func(n *Node) error {
		nodes = append(nodes, *n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return nodes, nil
}

// LoadTree returns a folder. All that [Repository.LoadBlob] says of the content and of
// errors holds for it.
func (r *Repository) LoadTree(ctx context.Context, id ID) (t *Tree, err error) {
	err = r.eachCopy(ctx, TreeBlob, id, func(op string, p place) error {
		if !p.compressed() || p.size < largeTree {
			text, err := r.loadFrom(ctx, op, p, nil)
			t = &Tree{text: text}
			return err
		}
		t, err = r.loadLarge(ctx, op, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// loadLarge loads one copy of a tree that is large and compressed.
func (r *Repository) loadLarge(ctx context.Context, op string, p place) (*Tree, error) {
	h := backend.Handle{Type: backend.PackFile, Name: p.pack.String()}
	sealed, err := r.loadSealed(ctx, op, h, p, nil)
	if err != nil {
		return nil, err
	}
	packed, err := r.codec.key.Open(sealed)
	if err != nil {
		return nil, damaged(op, h, "%w", err)
	}
	t := &Tree{packed: packed, size: int(p.size)}
	switch id, n, err := t.hash(); {
	case err != nil:
		return nil, damaged(op, h, "decompress: %w", err)
	case id != p.id || n != int64(t.size):
		return nil, damaged(op, h, "%w", errHash)
	}
	return t, nil
}

// SaveTree stores a folder as [Repository.SaveBlob] stores a blob.
func (r *Repository) SaveTree(ctx context.Context, t *Tree) (id ID, stored int64, err error) {
	if t.whole() {
		return r.SaveBlob(ctx, TreeBlob, t.text)
	}
	if err := r.writable(); err != nil {
		return ID{}, 0, err
	}
	if err := checkSize(t.Size()); err != nil {
		return ID{}, 0, err
	}
	if id, _, err = t.hash(); err != nil {
		return ID{}, 0, err
	}
	mine, err := r.claim(ctx, blobKey{TreeBlob, id}, int64(t.Size()))
	if err != nil || !mine {
		return id, 0, err
	}
	sealed, compressed, err := r.codec.sealTree(t)
	if err != nil {
		r.settle(blobKey{TreeBlob, id}, err)
		return id, 0, err
	}
	stored, err = r.add(ctx, TreeBlob, id, sealed, t.Size(), compressed)
	return id, stored, err
}

// errFound ends a search.
var errFound = errors.New("found")

// Children returns the nodes of these names in the folder whose tree is given; nil for
// one that is not there. A folder with large nodes is read but once.
func (r *Repository) Children(ctx context.Context, folder ID, names ...string) ([]*Node, error) {
	t, err := r.LoadTree(ctx, folder)
	if err != nil {
		return nil, err
	}
	found, missing := make([]*Node, len(names)), len(names)
	err = t.Walk(func(n *Node) error {
		i := slices.Index(names, n.Name)
		if i < 0 {
			return nil
		}
		found[i] = n
		if missing--; missing == 0 {
			return errFound
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFound) {
		return nil, err
	}
	return found, nil
}

// LoadSmall returns the content of a file of at most limit bytes. A larger one, and
// what is no file, is [ErrLimit].
func (r *Repository) LoadSmall(ctx context.Context, n *Node, limit int) ([]byte, error) {
	if n.Type != NodeFile || n.Size > uint64(limit) {
		return nil, fmt.Errorf("%w: a %s of %d bytes, and it should be a file of at most %d", ErrLimit, n.Type, n.Size, limit)
	}
	var text []byte
	for _, id := range n.Content {
		part, err := r.LoadBlob(ctx, DataBlob, id, nil)
		if err != nil {
			return nil, err
		}
		if text = append(text, part...); len(text) > limit {
			return nil, fmt.Errorf("%w: a file has more than %d bytes", ErrLimit, limit)
		}
	}
	return text, nil
}
