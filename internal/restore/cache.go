package restore

import (
	lru "container/list"
	"context"
	"slices"
	"sync"

	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/repository"
)

const (
	// maxFolderBytes bounds the folders that are kept, by the size of their
	// blobs, which is about that of their nodes. It has room for a folder of
	// 300,000 entries, which is needed again after each of its subfolders.
	maxFolderBytes = 128 << 20
	// maxBlobBytes bounds the pieces of files that are kept. A file is read from
	// its beginning to its end, so a few of 8 MiB are enough.
	maxBlobBytes = 48 << 20
	// maxAhead is how many pieces are loaded before they are asked for, at the
	// same time.
	maxAhead = 4
	// maxAheadBytes is how far ahead of a reader that goes through a file in order
	// pieces are loaded. Those of a disk's image are as small as 64 KiB, and a
	// distant repository answers each as late as a large one.
	maxAheadBytes = 4 << 20
)

// folderCache keeps the folders that were used last. The zero value is ready.
type folderCache struct {
	mu      sync.Mutex     // guards what follows
	entries []cachedFolder // the one that was used last is at the end
	bytes   int
}

type cachedFolder struct {
	dir   int
	nodes []repository.Node
	bytes int
}

func (c *folderCache) get(dir int) ([]repository.Node, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range slices.Backward(c.entries) {
		if e.dir == dir {
			c.entries = append(slices.Delete(c.entries, i, i+1), e)
			return e.nodes, true
		}
	}
	return nil, false
}

// maxFoldersKept bounds how long a search in the cache takes, and what many folders of
// a thousand files take, whose nodes are twice as large as their blobs. A walk needs
// the folders on the way to where it is.
const maxFoldersKept = 64

func (c *folderCache) put(dir int, nodes []repository.Node, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.ContainsFunc(c.entries, func(e cachedFolder) bool { return e.dir == dir }) {
		return // somebody else loaded it meanwhile
	}
	c.entries = append(c.entries, cachedFolder{dir, nodes, bytes})
	c.bytes += bytes
	for len(c.entries) > 1 && (c.bytes > maxFolderBytes || len(c.entries) > maxFoldersKept) {
		c.bytes -= c.entries[0].bytes
		c.entries = slices.Delete(c.entries, 0, 1)
	}
}

// blobCache keeps the pieces of files that were used last, and loads each once
// however many ask for it.
type blobCache struct {
	ctx   context.Context
	repo  *repository.Repository
	ahead chan struct{} // has a slot for each piece that is loaded ahead

	mu    sync.Mutex // guards what follows
	known map[repository.ID]*lru.Element
	order lru.List // of *cachedBlob; the one that was used last is at the end
	bytes int64
}

// cachedBlob is a piece that is there, or being loaded.
type cachedBlob struct {
	id    repository.ID
	bytes int64
	load  func() ([]byte, error)
}

func newBlobCache(ctx context.Context, repo *repository.Repository) *blobCache {
	return &blobCache{ctx: ctx, repo: repo, ahead: make(chan struct{}, maxAhead), known: map[repository.ID]*lru.Element{}}
}

// get returns a piece, which is not to be changed.
func (c *blobCache) get(id repository.ID) ([]byte, error) {
	e, _ := c.entry(id)
	data, err := e.load()
	if err != nil {
		c.forget(e) // the next one to ask may have more luck
	}
	return data, err
}

// prefetch begins to load a piece. It reports false if enough is being loaded ahead.
func (c *blobCache) prefetch(id repository.ID) bool {
	select {
	case c.ahead <- struct{}{}:
	default:
		return false
	}
	e, isNew := c.entry(id)
	if !isNew {
		<-c.ahead
		return true
	}
	go func() {
		defer func() { <-c.ahead }()
		if _, err := e.load(); err != nil {
			c.forget(e) // whoever needs it gets the error
		}
	}()
	return true
}

func (c *blobCache) entry(id repository.ID) (e *cachedBlob, isNew bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.known[id]; at != nil {
		c.order.MoveToBack(at)
		return at.Value.(*cachedBlob), false
	}
	size, _ := c.repo.BlobSize(repository.DataBlob, id)
	e = &cachedBlob{id: id, bytes: size, load: sync.OnceValues(func() ([]byte, error) {
		return c.repo.LoadBlob(c.ctx, repository.DataBlob, id, nil)
	})}
	c.known[id] = c.order.PushBack(e)
	for c.bytes += size; c.order.Len() > 1 && (c.bytes > maxBlobBytes || c.order.Len() > maxBlobsKept); {
		c.remove(c.order.Front())
	}
	return e, true
}

// maxBlobsKept bounds what it costs to know of pieces, some 600 bytes each: a million
// files have pieces of a few bytes. It has room for maxBlobBytes of the smallest in
// the image of a disk.
const maxBlobsKept = maxBlobBytes / wholedisk.MinSegment

func (c *blobCache) remove(at *lru.Element) {
	e := c.order.Remove(at).(*cachedBlob)
	delete(c.known, e.id)
	c.bytes -= e.bytes
}

func (c *blobCache) forget(e *cachedBlob) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.known[e.id]; at != nil && at.Value == e {
		c.remove(at)
	}
}
