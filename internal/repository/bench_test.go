package repository_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/memory"
)

// benchParity is the parity of benchmarks, in percent.
var benchParity = flag.Int("parity", 0, "the parity that BenchmarkSaveBlob makes, in percent")

func BenchmarkSaveBlob(b *testing.B) {
	text := bytes.Repeat([]byte("some text that compresses as text does, with numbers such as 8173 in it\n"), 1<<20/72)
	for _, kind := range []string{"random", "text"} {
		for _, workers := range []int{1, runtime.GOMAXPROCS(0)} {
			b.Run(fmt.Sprintf("%s/%d", kind, workers), func(b *testing.B) {
				r := createIn(b, &discard{}, repository.Options{Parity: *benchParity})
				b.SetBytes(1 << 20)
				var next atomic.Int64
				var wg sync.WaitGroup
				for range workers {
					wg.Go(func() {
						data := random(1, 1<<20)
						if kind == "text" {
							data = bytes.Clone(text)
						}
						for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
							copy(data, fmt.Sprint(n))
							if _, _, err := r.SaveBlob(b.Context(), repository.DataBlob, data); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				if err := r.Flush(b.Context()); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// discard keeps all but packs and their parity, so that a benchmark measures no memory.
type discard struct{ memory.Backend }

func (d *discard) Save(ctx context.Context, h backend.Handle, data []byte) error {
	if h.Type.Split() {
		return nil
	}
	return d.Backend.Save(ctx, h, data)
}
