package repository

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/memory"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// TestLargeIndex: an index file that is parsed as it is decompressed says what one does
// that is not.
func TestLargeIndex(t *testing.T) {
	be, ctx := &memory.Backend{}, t.Context()
	r, err := Create(ctx, be, []byte("x"), CreateOptions{KDF: &crypto.Params{N: 1 << 10, R: 8, P: 1}})
	if err != nil {
		t.Fatal(err)
	}
	var ids []ID
	for i := range 20_000 {
		id, _, err := r.SaveBlob(ctx, DataBlob, fmt.Append(nil, i))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := r.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	err = be.List(ctx, backend.IndexFile, func(info backend.FileInfo) error {
		if info.Size < largeFile {
			err = fmt.Errorf("an index has only %d bytes", info.Size)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(ctx, be, []byte("x"), Options{})
	if err == nil {
		err = again.LoadIndex(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		if size, ok := again.BlobSize(DataBlob, id); !ok || size != int64(len(fmt.Append(nil, i))) {
			t.Fatalf("blob %d: %d bytes, %t", i, size, ok)
		}
	}
}

// TestManySmallBlobs: a pack of tiny blobs is closed before all that is known of it takes
// much memory, and each pack is in an index file that is no larger than another.
func TestManySmallBlobs(t *testing.T) {
	r, ctx := newMemoryRepository(t), t.Context()
	const count = maxPackBlobs + 10
	for i := range count {
		if _, _, err := r.SaveBlob(ctx, DataBlob, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	var blobs []int
	for _, pack := range r.Packs() {
		blobs = append(blobs, len(r.currentIndex().packBlobs(pack)))
		if err := r.CheckPack(ctx, pack, false); err != nil {
			t.Error(err)
		}
	}
	slices.Sort(blobs)
	if !slices.Equal(blobs, []int{10, maxPackBlobs}) {
		t.Errorf("%d blobs are in packs of %d", count, blobs)
	}
	indexes := 0
	err := r.be.List(ctx, backend.IndexFile, func(backend.FileInfo) error { indexes++; return nil })
	if err != nil || indexes != 2 {
		t.Errorf("%d index files, %v", indexes, err)
	}
}

// TestForgetIndex: an index that is forgotten is read again, and what is saved and in no
// index file yet is known all the time.
func TestForgetIndex(t *testing.T) {
	r, ctx := newMemoryRepository(t), t.Context()
	var ids []ID
	for i := range 2 {
		id, _, err := r.SaveBlob(ctx, DataBlob, fmt.Append(nil, i))
		if err == nil && i == 0 {
			err = r.Flush(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	known := func(want ...bool) {
		t.Helper()
		for i, id := range ids {
			if r.HasBlob(DataBlob, id) != want[i] {
				t.Errorf("blob %d is known: %t, want %t", i, !want[i], want[i])
			}
		}
	}
	if err := r.ForgetIndex(); err != nil {
		t.Fatal(err)
	}
	known(false, true)
	if err := r.LoadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	known(true, true)
	if err := r.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.ForgetIndex(); err != nil {
		t.Fatal(err)
	}
	known(false, false)
	if err := r.LoadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	known(true, true)
}

// TestEndlessIndex: what decompresses to more than an index can have is not read on.
func TestEndlessIndex(t *testing.T) {
	r := newMemoryRepository(t)
	packed := []byte{encodingZstd}
	for range maxUnpackedSize>>24 + 1 { // a frame of each, one behind the other
		packed = r.codec.enc.EncodeAll(bytes.Repeat([]byte(" "), 1<<24), packed)
	}
	noise := r.codec.enc.EncodeAll(manyBytes(largeFile), nil)
	rd, err := r.codec.openStream(r.codec.key.Seal(nil, append(packed, noise...)))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, rd); !errors.Is(err, ErrLimit) || n > maxUnpackedSize {
		t.Errorf("%d bytes were read, %v", n, err)
	}
}

// manyBytes are n bytes that do not compress.
func manyBytes(n int) (p []byte) {
	for _, id := range manyIDs(n/len(ID{}) + 1) {
		p = append(p, id[:]...)
	}
	return p
}
