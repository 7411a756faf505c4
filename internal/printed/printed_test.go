package printed_test

import (
	"io"
	"testing"

	"github.com/drydock-vm/drydock/internal/printed"
)

// TestKept writes in pieces of every size, and looks at what is kept.
func TestKept(t *testing.T) {
	const text = "0123456789"
	for limit := range len(text) + 2 {
		for piece := 1; piece <= len(text); piece++ {
			head, tail := &printed.Head{Limit: limit}, &printed.Tail{Limit: limit}
			for _, w := range []io.Writer{head, tail} {
				for at := 0; at < len(text); at += piece {
					part := text[at:min(at+piece, len(text))]
					if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
						t.Fatal(n, err)
					}
				}
			}
			keep := min(limit, len(text))
			if got, cut := head.Bytes(); string(got) != text[:keep] || cut != (limit < len(text)) {
				t.Errorf("head of %d, pieces of %d: %q, %v", limit, piece, got, cut)
			}
			if got, cut := tail.Bytes(); string(got) != text[len(text)-keep:] || cut != (limit < len(text)) {
				t.Errorf("tail of %d, pieces of %d: %q, %v", limit, piece, got, cut)
			}
		}
	}
}
