package restore

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/repository"
)

// content is a file of a snapshot. It implements [disk.Sparse].
type content struct {
	tree *Tree
	name string
	ids  []repository.ID
	ends []int64 // where each blob ends in the file, in bytes

	known bool // whether it is known where holes are
	holes []repository.Hole

	mu    sync.Mutex // guards what follows
	next  int        // the piece that a reader comes to which goes on in order
	depth int        // how many pieces to load ahead of it
}

// openContent checks that the pieces add up to the file.
func (t *Tree) openContent(n *repository.Node) (*content, error) {
	c := &content{tree: t, name: n.Name, ids: n.Content, ends: make([]int64, 0, len(n.Content))}
	var end int64
	for i, id := range n.Content {
		size, ok := t.repo.BlobSize(repository.DataBlob, id)
		if !ok {
			err := fmt.Errorf("piece %d of %d: %w: %s", i+1, len(n.Content), repository.ErrBlobNotFound, id.Short())
			return nil, t.failed(fmt.Sprintf("content of %.300q", n.Name), err)
		}
		end += size // at most 2^23 pieces of 2^29 bytes fit into a folder
		c.ends = append(c.ends, end)
	}
	if uint64(end) != n.Size {
		return nil, damaged(n, "its pieces have %d bytes, and it should have %d", end, n.Size)
	}
	// A record of holes that cannot be read costs no more than the holes.
	c.holes, c.known, _ = n.Holes()
	return c, nil
}

func (c *content) Size() int64 {
	if len(c.ends) == 0 {
		return 0
	}
	return c.ends[len(c.ends)-1]
}

// at returns the piece that holds byte off, and where it begins.
func (c *content) at(off int64) (piece int, start int64) {
	piece = sort.Search(len(c.ends), func(i int) bool { return c.ends[i] > off })
	if piece > 0 {
		start = c.ends[piece-1]
	}
	return piece, start
}

var errOffset = errors.New("negative offset")

func (c *content) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errOffset
	}
	for n < len(p) {
		at := off + int64(n)
		if at >= c.Size() {
			return n, io.EOF
		}
		var k int
		if h := c.nextHole(at); h.Offset <= at {
			k = int(min(int64(len(p)-n), h.Offset+h.Length-at))
			clear(p[n : n+k])
		} else if k, err = c.readPiece(p[n:n+int(min(int64(len(p)-n), h.Offset-at))], at); err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// readPiece reads from the piece that holds byte off, as far as that goes.
func (c *content) readPiece(p []byte, off int64) (int, error) {
	i, start := c.at(off)
	c.prefetch(i)
	data, err := c.tree.blobs.get(c.ids[i])
	if err != nil {
		return 0, c.tree.failed(fmt.Sprintf("content of %.300q at %d", c.name, start), err)
	}
	if int64(len(data)) != c.ends[i]-start {
		return 0, &disk.Error{Layer: c.tree.info.Type, Structure: fmt.Sprintf("content of %.300q", c.name), Offset: start,
			Err: disk.ErrCorrupt, Detail: "a piece is not as long as the index says"}
	}
	return copy(p, data[off-start:]), nil
}

// prefetch begins to load the pieces behind piece i, more of them the longer the
// reader has been going through the file in order.
func (c *content) prefetch(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch i {
	case c.next - 1:
		return // still the same one
	case c.next:
		c.depth = min(max(1, 2*c.depth), maxDepthAhead)
	default:
		c.depth = 0
	}
	c.next = i + 1
	for k := i + 1; k <= i+c.depth && k < len(c.ids) && (k == i+1 || c.ends[k]-c.ends[i] <= maxAheadBytes); k++ {
		if c.zero(k) || c.nextHole(c.ends[k-1]).Offset <= c.ends[k-1] {
			continue
		}
		if !c.tree.blobs.prefetch(c.ids[k]) {
			return
		}
	}
}

// maxDepthAhead is maxAheadBytes in the smallest pieces of an image.
const maxDepthAhead = maxAheadBytes / wholedisk.MinSegment

// zeroBlobs are the pieces that long runs of zeros are cut into: by restic's
// chunker into the smallest, by a backup that knows of a hole into the largest, and
// in the image of a disk into any power of two between.
var zeroBlobs = sync.OnceValue(func() map[repository.ID]bool {
	zeros, known := make([]byte, repository.MaxChunk), make(map[repository.ID]bool)
	for n := len(zeros); n >= wholedisk.MinSegment; n /= 2 {
		known[repository.Hash(zeros[:n])] = true
	}
	return known
})

func (c *content) zero(piece int) bool { return zeroBlobs()[c.ids[piece]] }

func (c *content) Extents(off, length int64, yield func(disk.Extent) error) error {
	if off < 0 || length < 0 || length > c.Size()-off {
		return fmt.Errorf("extents of %d bytes at %d: %w", length, off, io.ErrUnexpectedEOF)
	}
	for end := off + length; off < end; {
		e := c.extent(off)
		e.Length = min(e.Length, end-off)
		if err := yield(e); err != nil {
			return err
		}
		off += e.Length
	}
	return nil
}

// extent returns the extent from off on. Where holes are not known, pieces of zeros
// are all that can be told apart.
func (c *content) extent(off int64) disk.Extent {
	if !c.known {
		i, _ := c.at(off)
		e := disk.Extent{Offset: off, Length: c.ends[i] - off}
		if c.zero(i) {
			e.Kind = disk.ExtentZero
		}
		return e
	}
	h := c.nextHole(off)
	if h.Offset > off {
		return disk.Extent{Offset: off, Length: h.Offset - off}
	}
	return disk.Extent{Offset: off, Length: h.Offset + h.Length - off, Kind: disk.ExtentHole}
}

// nextHole returns the hole that off is in, or the next one: at last the one of no
// bytes at the end.
func (c *content) nextHole(off int64) repository.Hole {
	i := sort.Search(len(c.holes), func(i int) bool { return c.holes[i].Offset+c.holes[i].Length > off })
	if i == len(c.holes) {
		return repository.Hole{Offset: c.Size()}
	}
	return c.holes[i]
}
