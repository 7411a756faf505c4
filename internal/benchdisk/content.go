package benchdisk

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"strings"
)

const poolSize = 48 << 20

// Text is 48 MiB of words, the frequent ones much more often than the others.
func Text(rng *rand.Rand) []byte {
	words := make([]string, 8192)
	for i := range words {
		var b strings.Builder
		for range 2 + rng.IntN(9) {
			b.WriteByte("etaoinshrdlucmfwypvbgkjqxz"[min(rng.IntN(26), rng.IntN(26))])
		}
		words[i] = b.String()
	}
	zipf := rand.NewZipf(rng, 1.2, 4, uint64(len(words)-1))
	pool := make([]byte, 0, poolSize+64)
	for len(pool) < poolSize {
		pool = append(pool, words[zipf.Uint64()]...)
		pool = append(pool, " \n,."[min(3, rng.IntN(12)/3)&rng.IntN(4)])
	}
	return pool[:poolSize]
}

// Binary is 48 MiB like machine code and tables: a few frequent byte values, small
// numbers, repeats, and some noise.
func Binary(rng *rand.Rand) []byte {
	pool := make([]byte, 0, poolSize+64)
	for len(pool) < poolSize {
		switch k := rng.IntN(10); {
		case k < 4:
			for range 8 {
				pool = append(pool, byte(rng.ExpFloat64()*24))
			}
		case k < 7 && len(pool) > 1<<15:
			from := len(pool) - 16 - rng.IntN(1<<14)
			pool = append(pool, pool[from:from+8+rng.IntN(8)]...)
		case k < 9:
			pool = append(pool, byte(rng.Uint32()), byte(rng.Uint32()), 0, 0)
		default:
			pool = append(pool, make([]byte, 12)...)
		}
	}
	return pool[:poolSize]
}

// writer writes files of text, of binaries and, one of eight, of noise as packed files
// are; always the same ones, no two alike.
type writer struct {
	rng   *rand.Rand
	pools [][]byte
	buf   []byte
}

func newWriter() *writer {
	w := &writer{rng: rand.New(rand.NewPCG(1, 2))}
	w.pools = [][]byte{Text(w.rng), Binary(w.rng)}
	return w
}

func (w *writer) file(path string, size int) error {
	w.buf = w.buf[:0]
	pool := w.pools[w.rng.IntN(len(w.pools))]
	noise := w.rng.IntN(8) == 0
	for len(w.buf) < size {
		if noise {
			w.buf = binary.LittleEndian.AppendUint64(w.buf, w.rng.Uint64())
			continue
		}
		// Pieces too small for a chunk to be the same anywhere else.
		n := 100 + w.rng.IntN(4000)
		from := w.rng.IntN(len(pool) - n)
		w.buf = append(w.buf, pool[from:from+n]...)
	}
	return os.WriteFile(path, w.buf[:size], 0o644)
}
