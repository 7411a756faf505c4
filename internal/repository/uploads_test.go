package repository

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// waiting is a place that stores no pack before it is released.
type waiting struct {
	backend.Backend
	came    chan struct{}
	release chan struct{}
}

func (w *waiting) Save(ctx context.Context, h backend.Handle, data []byte) error {
	if h.Type == backend.PackFile {
		w.came <- struct{}{}
		<-w.release
	}
	return w.Backend.Save(ctx, h, data)
}

// atOnce returns how many packs are stored at once, none of which is being filled. It waits
// for as many as are wanted, and a moment for more.
func atOnce(t *testing.T, uploads, indexed, want int) int {
	t.Helper()
	w := &waiting{came: make(chan struct{}), release: make(chan struct{})}
	whole := newMemoryRepository(t)
	w.Backend = whole.be
	r, err := Open(t.Context(), w, []byte("x"), Options{PackSize: minPackSize, Uploads: uploads})
	if err != nil {
		t.Fatal(err)
	}
	entries := make([]blobEntry, indexed)
	for n := range entries {
		entries[n].length = 100
		binary.LittleEndian.PutUint64(entries[n].id[:], uint64(n))
	}
	if err := r.currentIndex().add(ID{1}, entries); err != nil {
		t.Fatal(err)
	}
	saved := make(chan error, 1)
	go func() {
		for range maxOpen + manyUploads + 3 {
			data := make([]byte, minPackSize)
			_, _ = rand.Read(data) // never fails
			if _, _, err := r.SaveBlob(t.Context(), DataBlob, data); err != nil {
				saved <- err
				return
			}
		}
		saved <- r.Flush(t.Context())
	}()
	n := 0
	for wait := time.Minute; wait > 0; {
		if n == want {
			wait = time.Second
		}
		select {
		case <-w.came:
			n++
		case <-time.After(wait):
			wait = 0
		}
	}
	close(w.release)
	for {
		select {
		case <-w.came:
			continue
		case err := <-saved:
			if err != nil {
				t.Error(err)
			}
		}
		return n
	}
}

// As many packs are stored at once as was asked for, within bounds, and few where the
// index takes their memory.
func TestUploads(t *testing.T) {
	for _, c := range []struct{ asked, indexed, want int }{
		{0, 0, fewUploads}, {1, 0, fewUploads}, {3, 0, 3}, {100, 0, manyUploads},
		{100, largeIndex, fewUploads}, {4, largeIndex, fewUploads}, {0, largeIndex, fewUploads},
	} {
		t.Run(fmt.Sprintf("%d of %d blobs", c.asked, c.indexed), func(t *testing.T) {
			t.Parallel() // most of it is waiting
			want := maxOpen + c.want
			if n := atOnce(t, c.asked, c.indexed, want); n != want {
				t.Errorf("%d packs are stored at once, want %d", n, want)
			}
		})
	}
}
