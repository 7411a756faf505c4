// Package garbage says how much garbage this program lets gather in its memory.
package garbage

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// How much garbage there may be beside what is in use. Above 160 MiB it is a fifth: with
// Go's default a backup of a million small files would take 480 MB, and what lives long,
// the index and packs, has nothing in it to follow. Below, a fifth would be collected
// every few milliseconds: a backup in which nothing has changed took a fifth of its time
// for that.
const (
	percent = 20
	spare   = 32 << 20 // bytes
)

// Bound sets the garbage collector to what suits drydock: a backup, or a look at a disk
// or a backup, is all that one process does, and much of what it takes memory for is soon
// not needed. It stays so until the program ends.
func Bound() { bound() }

var bound = sync.OnceFunc(func() {
	debug.SetGCPercent(percentFor(0))
	runtime.SetFinalizer(new(collection), (*collection).ended)
})

// collection is garbage from the start, so that each collection ends with its finalizer.
type collection struct {
	_ [32]byte // what is smaller shares its place with what may live on
}

func (c *collection) ended() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	debug.SetGCPercent(percentFor(live[0].Value.Uint64()))
	runtime.SetFinalizer(c, (*collection).ended)
}

// percentFor returns the percentage that leaves spare, or more, beside so many
// bytes that are in use.
func percentFor(live uint64) int {
	const smallest = 4 << 20 // the heap that Go takes for granted, at 100 percent
	return int(max(percent, 100*spare/max(live, smallest)))
}
