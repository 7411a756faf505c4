package cut_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/restic/chunker"

	"github.com/drydock-vm/drydock/internal/repository/cut"
)

// polynomial is one that restic made.
const polynomial = chunker.Pol(0x3DA3358B4DC173)

// random returns noise with runs in it that repeat, so that there are places where many
// chunks could end, and none.
func random(seed uint64, size int) []byte {
	noise := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	p := make([]byte, size)
	_, _ = noise.Read(p) // has no error
	rnd := rand.New(noise)
	for at := 0; at < size; at += 1 + rnd.IntN(1+size/3) {
		end := min(size, at+rnd.IntN(1+size/4))
		for i, b := at, byte(rnd.Uint32()); i < end; i++ {
			p[i] = b
		}
	}
	return p
}

// chunks returns the sizes of what restic's chunker makes of data.
func restics(t testing.TB, data []byte, least, most int) (sizes []int) {
	t.Helper()
	c := chunker.NewWithBoundaries(bytes.NewReader(data), polynomial, uint(least), uint(most))
	for {
		chunk, err := c.Next(nil)
		if errors.Is(err, io.EOF) {
			return sizes
		}
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, int(chunk.Length))
	}
}

// agree fails unless c cuts rd, which has data, where restic cuts it.
func agree(t testing.TB, c *cut.Cutter, rd io.Reader, data []byte, least, most int) {
	t.Helper()
	want := restics(t, data, least, most)
	c.Reset(rd)
	var buf []byte
	for i := 0; ; i++ {
		chunk, err := c.Next(buf)
		if errors.Is(err, io.EOF) && i == len(want) && len(data) == 0 {
			return
		}
		if err != nil || i == len(want) || len(chunk) != want[i] || !bytes.Equal(chunk, data[:len(chunk)]) {
			t.Fatalf("chunk %d of %d has %d bytes, %v; restic's are of %v", i, len(want), len(chunk), err, want)
		}
		data, buf = data[len(chunk):], chunk
	}
}

// TestAsRestic: chunks are restic's, of all sizes of streams, however they are read, and
// with one cutter after the other.
func TestAsRestic(t *testing.T) {
	t.Parallel()
	tables := cut.NewTables(polynomial)
	for _, size := range []struct{ least, most int }{{512 << 10, 8 << 20}, {64, 1 << 20}, {64, 65}, {4 << 10, 64 << 10}, {100_000, 3_000_000}} {
		c := cut.New(tables, size.least, size.most)
		for seed, n := range []int{0, 1, 63, 64, 65, size.least - 1, size.least, size.least + 1, size.least + 16<<10 + 63, 512 << 10, 512<<10 + 1, 3 << 20, size.most, size.most + 1, 19 << 20} {
			t.Run(fmt.Sprintf("%d-%d/%d", size.least, size.most, n), func(t *testing.T) {
				if size.most < 1<<10 {
					n = min(n, 1<<20)
				}
				data := random(uint64(seed), n)
				agree(t, c, bytes.NewReader(data), data, size.least, size.most)
				agree(t, c, iotest.HalfReader(iotest.DataErrReader(bytes.NewReader(data))), data, size.least, size.most)
			})
		}
	}
}

// TestEnds: streams in which an end lies at each place of a lane, and behind another.
func TestEnds(t *testing.T) {
	t.Parallel()
	tables := cut.NewTables(polynomial)
	data := random(3, 6<<20)
	sizes := restics(t, data, 64, 64<<20)
	if len(sizes) < 3 {
		t.Fatalf("%d chunks of 6 MiB", len(sizes))
	}
	end := data[sizes[0]-64 : sizes[0]] // a chunk ends behind these
	c := cut.New(tables, 512, 1<<20)
	for at := 512 - 64; at < 512+17<<10; at += 61 {
		stream := bytes.Repeat([]byte{7}, 40<<10)
		copy(stream[at:], end)
		copy(stream[at+5000:], end)
		agree(t, c, bytes.NewReader(stream), stream, 512, 1<<20)
		if got := restics(t, stream, 512, 1<<20); got[0] != at+64 {
			t.Fatalf("restic does not cut at %d, but after %v", at+64, got)
		}
	}
}

// TestReadError: the stream's own error is returned, and the cutter can be used again.
func TestReadError(t *testing.T) {
	broken := errors.New("broken")
	c := cut.New(cut.NewTables(polynomial), 512<<10, 8<<20)
	for _, n := range []int{0, 100, 600 << 10} {
		data := random(9, n)
		c.Reset(io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken)))
		var err error
		for err == nil {
			_, err = c.Next(nil)
		}
		if !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", n, err)
		}
		agree(t, c, bytes.NewReader(data), data, 512<<10, 8<<20)
	}
}

// FuzzAsRestic cuts anything where restic does.
func FuzzAsRestic(f *testing.F) {
	f.Add([]byte("the same again and again"), 5000, 64, 4000)
	f.Add(random(1, 70_000), 3, 64, 30_000)
	f.Fuzz(func(t *testing.T, data []byte, times, least, most int) {
		data = bytes.Repeat(data, int(uint(times)%50))
		data = data[:min(len(data), 1<<20)]
		least = 64 + int(uint(least)%(64<<10))
		most = least + int(uint(most)%(256<<10))
		agree(t, cut.New(cut.NewTables(polynomial), least, most), bytes.NewReader(data), data, least, most)
	})
}

// BenchmarkCut cuts 32 MiB, and so does restic's chunker.
func BenchmarkCut(b *testing.B) {
	data, buf := random(5, 32<<20), make([]byte, 0, 9<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	b.Run("cut", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		c := cut.New(cut.NewTables(polynomial), 512<<10, 8<<20)
		for range b.N {
			c.Reset(bytes.NewReader(data))
			for err := error(nil); err == nil; {
				_, err = c.Next(buf)
			}
		}
	})
	b.Run("restic", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		c := chunker.NewWithBoundaries(nil, polynomial, 512<<10, 8<<20)
		for range b.N {
			c.ResetWithBoundaries(bytes.NewReader(data), polynomial, 512<<10, 8<<20)
			for err := error(nil); err == nil; {
				_, err = c.Next(buf)
			}
		}
	})
}
