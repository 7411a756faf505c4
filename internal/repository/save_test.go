package repository_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/restic/chunker"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// Many goroutines save the same blobs at once: each is stored once.
func TestSaveBlobConcurrent(t *testing.T) {
	be := &watched{}
	r := createIn(t, be, repository.Options{PackSize: 4 << 20})
	const blobs, savers = 64, 8
	var stored atomic.Int64
	var wg sync.WaitGroup
	for s := range savers {
		wg.Go(func() {
			for i := range blobs {
				n := (i + s*7) % blobs
				id, took, err := r.SaveBlob(t.Context(), repository.DataBlob, random(uint64(n), 300_000))
				if err != nil || !r.HasBlob(repository.DataBlob, id) {
					t.Errorf("blob %d: %v", n, err)
				}
				if took > 0 {
					stored.Add(1)
				}
			}
			if err := r.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if stored.Load() != blobs {
		t.Errorf("%d blobs were stored, want %d", stored.Load(), blobs)
	}
	r = openIn(t, be)
	for n := range blobs {
		want := random(uint64(n), 300_000)
		got, err := r.LoadBlob(t.Context(), repository.DataBlob, repository.Hash(want), nil)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("blob %d: %v", n, err)
		}
	}
}

// Packs are durable before the index that names them.
func TestOrder(t *testing.T) {
	be := &watched{}
	r := createIn(t, be, repository.Options{PackSize: 4 << 20})
	for i := range 10 {
		if _, _, err := r.SaveBlob(t.Context(), repository.DataBlob, random(uint64(i), 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	tree, _, err := r.SaveBlob(t.Context(), repository.TreeBlob, []byte("{\"nodes\":[]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.SaveSnapshot(t.Context(), &repository.Snapshot{Time: time.Now(), Tree: tree, Paths: []string{"/"}}); err != nil {
		t.Fatal(err)
	}
	want := []backend.FileType{"keys", "config", "data", "data", "data", "data", "index", "snapshots"}
	if !slices.Equal(be.saved, want) {
		t.Errorf("stored %v, want %v", be.saved, want)
	}
	if err := r.Flush(t.Context()); err != nil || len(be.saved) != len(want) {
		t.Errorf("a second flush stored %v, %v", be.saved[len(want):], err)
	}
}

func TestSaveSnapshotRefuses(t *testing.T) {
	r := createIn(t, &watched{}, repository.Options{})
	_, err := r.SaveSnapshot(t.Context(), &repository.Snapshot{Time: time.Now(), Tree: repository.Hash([]byte("x"))})
	wantError(t, err, repository.ErrBlobNotFound)
	tree, _, err := r.SaveBlob(t.Context(), repository.TreeBlob, []byte("{\"nodes\":[]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	s := repository.Snapshot{Time: time.Now(), Tree: tree, Paths: []string{"/"}}
	_, err = r.SaveSnapshot(t.Context(), &s)
	wantError(t, err, repository.ErrBlobNotFound) // it could not be restored after a crash
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if id, err := r.SaveSnapshot(t.Context(), &s); err != nil || s.ID != id {
		t.Errorf("after a flush: %v", err)
	}
	for _, s := range []repository.Snapshot{{}, {Time: time.Now()}, {Tree: repository.Hash(nil)}} {
		if _, err := r.SaveSnapshot(t.Context(), &s); err == nil {
			t.Errorf("%+v: accepted", s)
		}
	}
}

// A target that is full or gone: everybody is told, nothing is referred to, and a
// later run works.
func TestStorageFails(t *testing.T) {
	full := errors.New("no space left on device")
	for _, ft := range []backend.FileType{backend.PackFile, backend.IndexFile} {
		t.Run(string(ft), func(t *testing.T) {
			be := &watched{}
			r := createIn(t, be, repository.Options{PackSize: 4 << 20})
			be.before = func(op string, h backend.Handle) error {
				if h.Type == ft {
					return full
				}
				return nil
			}
			for i := range 20 {
				_, _, err := r.SaveBlob(t.Context(), repository.DataBlob, random(uint64(i), 1<<20))
				if err != nil && !errors.Is(err, full) {
					t.Errorf("save: %v", err)
				}
			}
			wantError(t, r.Flush(t.Context()), full)
			be.before = nil
			wantError(t, r.Flush(t.Context()), full) // what was said to be saved is not
			_, _, err := r.SaveBlob(t.Context(), repository.DataBlob, []byte("more"))
			wantError(t, err, full)
			if n := be.count(t, backend.IndexFile); n != 0 {
				t.Errorf("%d index files", n)
			}
			r = openIn(t, be)
			id, _, err := r.SaveBlob(t.Context(), repository.DataBlob, random(1, 1<<20))
			if err != nil || r.Flush(t.Context()) != nil {
				t.Fatal(err)
			}
			if _, err := r.LoadBlob(t.Context(), repository.DataBlob, id, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// A caller that was cancelled leaves no harm to the others that save the same.
func TestSaveCancelled(t *testing.T) {
	be := &watched{}
	r := createIn(t, be, repository.Options{PackSize: 4 << 20})
	hold := make(chan struct{})
	be.before = func(op string, h backend.Handle) error {
		if h.Type == backend.PackFile {
			<-hold
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for s := range 2 {
		wg.Go(func() {
			for i := range 30 {
				if _, _, err := r.SaveBlob(ctx, repository.DataBlob, random(uint64(100*s+i), 1<<20)); err != nil {
					return
				}
			}
		})
	}
	time.Sleep(50 * time.Millisecond) // until they wait, most likely
	cancel()
	wg.Wait()
	wantError(t, r.Flush(ctx), context.Canceled)
	close(hold)
	for s := range 2 {
		for i := range 30 {
			if _, _, err := r.SaveBlob(t.Context(), repository.DataBlob, random(uint64(100*s+i), 1<<20)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = openIn(t, be)
	for i := range 30 {
		if !r.HasBlob(repository.DataBlob, repository.Hash(random(uint64(i), 1<<20))) {
			t.Errorf("blob %d is lost", i)
		}
	}
}

// While storage is slow, savers wait instead of filling memory.
func TestBackPressure(t *testing.T) {
	be := &watched{}
	r := createIn(t, be, repository.Options{PackSize: 4 << 20})
	hold := make(chan struct{})
	be.before = func(op string, h backend.Handle) error {
		if h.Type == backend.PackFile {
			<-hold
		}
		return nil
	}
	var saved atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 100 {
			if _, _, err := r.SaveBlob(t.Context(), repository.DataBlob, random(uint64(i), 1<<20)); err != nil {
				t.Error(err)
			}
			saved.Add(1)
		}
	}()
	last := int64(-1)
	for n := saved.Load(); n != last; n = saved.Load() {
		last = n
		time.Sleep(200 * time.Millisecond)
	}
	if last >= 20 {
		t.Errorf("%d MiB were taken while nothing could be stored", last)
	}
	close(hold)
	<-done
	if err := r.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSaveStream(t *testing.T) {
	be := &watched{}
	r := createIn(t, be, repository.Options{})
	for _, size := range []int{0, 1, repository.MinChunk - 1, repository.MinChunk, repository.MinChunk + 1, 12 << 20} {
		want := random(uint64(size), size)
		content, n, _, err := r.SaveStream(t.Context(), iotest.OneByteReader(bytes.NewReader(want[:min(size, 1<<20)])))
		if size > 1<<20 {
			content, n, _, err = r.SaveStream(t.Context(), bytes.NewReader(want))
		}
		if err != nil || n != int64(size) || content == nil {
			t.Fatalf("%d bytes: saved %d, %v", size, n, err)
		}
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for i, id := range content {
			data, err := r.LoadBlob(t.Context(), repository.DataBlob, id, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(data) > repository.MaxChunk || len(data) < repository.MinChunk && i < len(content)-1 {
				t.Errorf("chunk %d of %d has %d bytes", i, len(content), len(data))
			}
			got = append(got, data...)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back as %d others", size, len(got))
		}
		// Restic's chunker cuts at the same places.
		c := chunker.New(bytes.NewReader(want), r.Polynomial())
		for i, id := range content {
			chunk, err := c.Next(nil)
			if err != nil || repository.Hash(chunk.Data) != id {
				t.Errorf("chunk %d of %d is another: %v", i, len(content), err)
			}
		}
	}
	broken := errors.New("bad sector")
	for _, size := range []int{0, 100, 3 << 20} {
		_, _, _, err := r.SaveStream(t.Context(), io.MultiReader(bytes.NewReader(random(7, size)), iotest.ErrReader(broken)))
		wantError(t, err, broken)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, _, err := r.SaveStream(ctx, bytes.NewReader(make([]byte, 30<<20)))
	wantError(t, err, context.Canceled)
}
