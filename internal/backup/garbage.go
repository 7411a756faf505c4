package backup

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
	garbagePercent = 20
	garbageSpare   = 32 << 20 // bytes
)

// BoundGarbage sets the garbage collector to what suits a program of which a backup, or
// a look at one, is all that it does. It stays so until the program ends.
func BoundGarbage() { boundGarbage() }

var boundGarbage = sync.OnceFunc(func() {
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

// percentFor returns the percentage that leaves garbageSpare, or more, beside so many
// bytes that are in use.
func percentFor(live uint64) int {
	const smallest = 4 << 20 // the heap that Go takes for granted, at 100 percent
	return int(max(garbagePercent, 100*garbageSpare/max(live, smallest)))
}
