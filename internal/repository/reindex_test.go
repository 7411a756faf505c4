package repository

import (
	"fmt"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// halfIndexed is a repository with some blobs, each in a pack of its own, and one index
// file, which names all packs and cannot be read to its end.
func halfIndexed(t *testing.T) (*Repository, []ID) {
	t.Helper()
	r := newMemoryRepository(t)
	var blobs []ID
	for i := range 3 {
		id, _, err := r.SaveBlob(t.Context(), DataBlob, fmt.Append(nil, "blob ", i))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, id)
	}
	var packs []finishedPack
	for _, id := range r.Packs() {
		packs = append(packs, finishedPack{id, r.currentIndex().packBlobs(id)})
	}
	plain := encodeIndex(packs)
	whole, err := r.listFiles(t.Context(), "test", backend.IndexFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range whole {
		if err := r.removeIndexFile(t.Context(), "test", id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.saveFile(t.Context(), "test", backend.IndexFile, append(plain[:len(plain)-2], `,{"id":"?"}]}`...)); err != nil {
		t.Fatal(err)
	}
	return r, blobs
}

func reopened(t *testing.T, r *Repository) *Repository {
	t.Helper()
	again, err := Open(t.Context(), r.be, []byte("x"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// What an index file says before it cannot be read any more is in memory, and in no file
// after that one is gone: it is indexed again.
func TestReindexWhatIsHalfRead(t *testing.T) {
	r, blobs := halfIndexed(t)
	r = reopened(t, r)
	if err := r.LoadIndex(t.Context()); !IsDamage(err) {
		t.Fatalf("the index file can be read: %v", err)
	}
	if bad, packs, err := r.Reindex(t.Context()); err != nil || len(bad) != 1 || len(packs) != len(blobs) {
		t.Fatalf("%v, %v, %v", bad, packs, err)
	}
	r = reopened(t, r)
	if err := r.LoadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, id := range blobs {
		if data, err := r.LoadBlob(t.Context(), DataBlob, id, nil); err != nil {
			t.Errorf("blob %d: %q, %v", i, data, err)
		}
	}
}

// That a file which cannot be read to its end names a pack as well does not make the only
// other one forget it, when another pack of that is taken out.
func TestRescueBesideAnIndexThatIsHalfRead(t *testing.T) {
	r, blobs := halfIndexed(t)
	packs := r.Packs()
	all := make([]finishedPack, 0, len(packs))
	for _, id := range packs {
		all = append(all, finishedPack{id, r.currentIndex().packBlobs(id)})
	}
	plain := encodeIndex(all)
	if _, err := r.saveFile(t.Context(), "test", backend.IndexFile, plain); err != nil {
		t.Fatal(err)
	}
	r = reopened(t, r)
	if err := r.LoadIndex(t.Context()); !IsDamage(err) {
		t.Fatalf("both index files can be read: %v", err)
	}
	did, err := r.Rescue(t.Context(), packs[:1], nil, nil)
	if err != nil || !slices.Equal(did.Gone, packs[:1]) {
		t.Fatalf("%+v, %v", did, err)
	}
	files, err := r.listFiles(t.Context(), "test", backend.IndexFile)
	if err != nil {
		t.Fatal(err)
	}
	r = reopened(t, r)
	for _, id := range files {
		if _, err := r.readIndexFile(t.Context(), "test", id); err == nil {
			if err := r.loadIndexFile(t.Context(), "test", r.currentIndex(), id); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, id := range blobs {
		if !r.HasBlob(DataBlob, id) {
			t.Errorf("blob %d is in no index file that can be read", i)
		}
	}
}
