// Package printed keeps a bounded part of what a program prints: the beginning, or
// the end. Both take any number of bytes, and never fail a program that writes more.
//
// A [Head] and a [Tail] can be read while the program, or one that it has left
// behind, still writes.
package printed

import (
	"bytes"
	"sync"
)

// Head keeps the first bytes that are written to it.
type Head struct {
	Limit int // how many

	mu   sync.Mutex // guards what follows
	data []byte
	cut  bool
}

// Write implements [io.Writer].
func (h *Head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	keep := min(len(p), h.Limit-len(h.data))
	h.data = append(h.data, p[:keep]...)
	h.cut = h.cut || keep < len(p)
	return len(p), nil
}

// Bytes returns what was kept, and whether there was more.
func (h *Head) Bytes() (data []byte, cut bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return bytes.Clone(h.data), h.cut
}

// Tail keeps the last bytes that are written to it.
type Tail struct {
	Limit int // how many

	mu   sync.Mutex // guards what follows
	data []byte
	cut  bool
}

// Write implements [io.Writer].
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut = t.cut || len(t.data)+len(p) > t.Limit
	t.data = append(t.data, p[max(0, len(p)-t.Limit):]...)
	if over := len(t.data) - t.Limit; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
	}
	return len(p), nil
}

// Bytes returns what was kept, and whether there was more before it.
func (t *Tail) Bytes() (data []byte, cut bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.data), t.cut
}
