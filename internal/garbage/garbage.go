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
// for that. A disk reader holds 15 MiB of a million files, of which little is to be
// followed, and is one more process beside the one that makes the backup.
const (
	percent     = 20
	Spare       = 32 << 20 // bytes
	ReaderSpare = 16 << 20
)

// Bound sets the garbage collector to what suits drydock: a backup, or a look at a disk
// or a backup, is all that one process does, and much of what it takes memory for is soon
// not needed. Spare is how many bytes of garbage there may be at least. It stays so until
// the program ends.
func Bound(spare uint64) {
	once.Do(func() {
		debug.SetGCPercent(percentFor(0, spare))
		runtime.SetFinalizer(&collection{spare: spare}, (*collection).ended)
	})
}

var once sync.Once

// collection is garbage from the start, so that each collection ends with its finalizer.
type collection struct {
	spare uint64
	_     [32]byte // what is smaller shares its place with what may live on
}

func (c *collection) ended() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	debug.SetGCPercent(percentFor(live[0].Value.Uint64(), c.spare))
	runtime.SetFinalizer(c, (*collection).ended)
}

// percentFor returns the percentage that leaves spare, or more, beside so many
// bytes that are in use.
func percentFor(live, spare uint64) int {
	const smallest = 4 << 20 // the heap that Go takes for granted, at 100 percent
	return int(max(percent, 100*spare/max(live, smallest)))
}
