// Package cache keeps byte slices that were read from a disk, within a budget:
// the least recently used make room for new ones.
package cache

import "sync"

// Cache is safe for concurrent use. What it hands out is shared: nobody writes to
// it, and it stays valid after the cache has dropped it.
type Cache[K comparable] struct {
	budget int64 // bytes

	mu      sync.Mutex // guards everything below
	entries map[K]*entry[K]
	ring    entry[K] // the anchor: ring.next is the entry used last
	used    int64    // bytes
}

type entry[K comparable] struct {
	key        K
	value      []byte
	prev, next *entry[K]
}

// New returns a cache of at most budget bytes; one of 0 or less keeps nothing.
func New[K comparable](budget int64) *Cache[K] {
	c := &Cache[K]{budget: budget, entries: make(map[K]*entry[K])}
	c.ring.prev, c.ring.next = &c.ring, &c.ring
	return c
}

// Get returns what was added under key, or nil.
func (c *Cache[K]) Get(key K) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return nil
	}
	if c.ring.next != e {
		e.unlink()
		c.ring.insert(e)
	}
	return e.value
}

// Add hands value, which is not empty, over to the cache. Of two that are added
// under one key the first is kept; one that is larger than the budget is not.
func (c *Cache[K]) Add(key K, value []byte) {
	size := int64(len(value))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[key] != nil || size > c.budget {
		return
	}
	for c.used > c.budget-size {
		oldest := c.ring.prev
		oldest.unlink()
		delete(c.entries, oldest.key)
		c.used -= int64(len(oldest.value))
	}
	e := &entry[K]{key: key, value: value}
	c.entries[key] = e
	c.ring.insert(e)
	c.used += size
}

func (e *entry[K]) unlink() { e.prev.next, e.next.prev = e.next, e.prev }

func (e *entry[K]) insert(n *entry[K]) {
	n.prev, n.next = e, e.next
	e.next.prev, e.next = n, n
}
