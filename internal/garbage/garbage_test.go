package garbage_test

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/garbage"
)

// As much garbage may gather as a small heap needs, and a fifth of a large one, also when
// one has become the other.
func TestBound(t *testing.T) {
	garbage.Bound(garbage.Spare)
	for _, c := range []struct {
		live     int // MiB
		low, top uint64
	}{{0, 400, 800}, {64, 40, 50}, {320, 20, 20}, {64, 40, 50}} {
		held := make([]byte, c.live<<20)
		percent, deadline := uint64(0), time.Now().Add(time.Minute)
		for percent < c.low || percent > c.top {
			if time.Now().After(deadline) {
				t.Fatalf("with %d MiB in use there may be %d %% of garbage, want %d to %d", c.live, percent, c.low, c.top)
			}
			runtime.GC()
			time.Sleep(time.Millisecond) // what follows a collection is done by another goroutine
			sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
			metrics.Read(sample)
			percent = sample[0].Value.Uint64()
		}
		runtime.KeepAlive(held)
	}
}
