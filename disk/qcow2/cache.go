package qcow2

import (
	"container/list"
	"sync"
)

// cache keeps the byte slices that were used last, as long as they take at most
// budget bytes together. What is in it is never written again.
type cache struct {
	budget int64

	mu    sync.Mutex // guards everything below
	used  int64
	order *list.List // of *cached, the one used last in front
	items map[uint64]*list.Element
}

type cached struct {
	key   uint64
	value []byte
}

func newCache(budget int64) *cache {
	return &cache{budget: budget, order: list.New(), items: make(map[uint64]*list.Element)}
}

func (c *cache) get(key uint64) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[key]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).value, true
}

// add hands value over to the cache. Two readers may add the same; one is kept.
func (c *cache) add(key uint64, value []byte) {
	size := int64(len(value))
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.items[key]; ok || size > c.budget {
		return
	}
	for c.used > c.budget-size {
		oldest := c.order.Back()
		item := c.order.Remove(oldest).(*cached)
		delete(c.items, item.key)
		c.used -= int64(len(item.value))
	}
	c.items[key] = c.order.PushFront(&cached{key: key, value: value})
	c.used += size
}
