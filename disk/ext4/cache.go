package ext4

import "sync"

// span is a range of the disk, in bytes.
type span struct {
	off int64
	len int
}

// cache keeps metadata blocks, the least recently used of which make room for
// new ones. What it hands out is shared: nobody writes to it, and it stays valid
// after the cache dropped it.
type cache struct {
	limit int64 // bytes

	mu      sync.Mutex // guards everything below
	entries map[span]*cached
	newest  cached // the ring's anchor: newest.next is the newest entry
	size    int64  // bytes held
}

type cached struct {
	key        span
	data       []byte
	prev, next *cached
}

func newCache(limit int64) *cache {
	c := &cache{limit: limit, entries: make(map[span]*cached)}
	c.newest.prev, c.newest.next = &c.newest, &c.newest
	return c
}

func (c *cache) get(key span) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return nil
	}
	e.unlink()
	c.newest.insert(e)
	return e.data
}

func (c *cache) put(key span, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[key] != nil {
		return // another goroutine read the same
	}
	e := &cached{key: key, data: data}
	c.entries[key] = e
	c.newest.insert(e)
	c.size += int64(len(data))
	for c.size > c.limit && c.newest.prev != e {
		oldest := c.newest.prev
		oldest.unlink()
		delete(c.entries, oldest.key)
		c.size -= int64(len(oldest.data))
	}
}

func (e *cached) unlink() { e.prev.next, e.next.prev = e.next, e.prev }

func (e *cached) insert(n *cached) {
	n.prev, n.next = e, e.next
	e.next.prev, e.next = n, n
}
