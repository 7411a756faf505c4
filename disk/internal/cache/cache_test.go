package cache_test

import (
	"sync"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/cache"
)

// held returns which of the keys 0 to n-1 are in c. Asking uses them all.
func held(c *cache.Cache[int], n int) (keys []int) {
	for key := range n {
		if c.Get(key) != nil {
			keys = append(keys, key)
		}
	}
	return keys
}

func TestLeastRecentlyUsedMakesRoom(t *testing.T) {
	c := cache.New[int](100)
	for key := range 10 {
		c.Add(key, make([]byte, 10))
	}
	c.Get(0)
	c.Add(10, make([]byte, 10))
	c.Add(11, make([]byte, 1000)) // larger than the budget
	got := held(c, 12)
	if len(got) != 10 || got[0] != 0 || got[1] != 2 || got[9] != 10 {
		t.Errorf("the cache holds %v", got)
	}
	c.Add(12, make([]byte, 100))
	if got := held(c, 13); len(got) != 1 || got[0] != 12 {
		t.Errorf("the cache holds %v", got)
	}
}

func TestFirstOfTwoIsKept(t *testing.T) {
	c := cache.New[int](100)
	c.Add(1, []byte("first"))
	c.Add(1, []byte("second"))
	if got := c.Get(1); string(got) != "first" {
		t.Errorf("got %q", got)
	}
}

func TestNoBudget(t *testing.T) {
	for _, budget := range []int64{0, -1} {
		c := cache.New[int](budget)
		c.Add(1, []byte("x"))
		if c.Get(1) != nil {
			t.Errorf("a cache of %d bytes keeps something", budget)
		}
	}
}

func TestConcurrent(t *testing.T) {
	c := cache.New[int](50)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 2000 {
				c.Add(i%30, []byte{byte(i % 30), 2, 3})
				if got := c.Get(i % 30); got != nil && got[0] != byte(i%30) {
					t.Errorf("key %d holds %v", i%30, got)
				}
			}
		})
	}
	wg.Wait()
	if got := held(c, 30); len(got) > 50/3 {
		t.Errorf("%d entries of 3 bytes in 50", len(got))
	}
}
