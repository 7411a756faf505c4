package repository_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// resticTags returns the tags of each snapshot, as restic lists them, and their
// originals.
func (p place) resticTags(t *testing.T) (tags map[string][]string, original map[string]string) {
	t.Helper()
	var list []struct {
		ID, Original string
		Tags         []string
	}
	if err := json.Unmarshal([]byte(p.restic(t, "snapshots", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	tags, original = make(map[string][]string), make(map[string]string)
	for _, s := range list {
		tags[s.ID], original[s.ID] = s.Tags, s.Original
	}
	return tags, original
}

// SetTags does what restic tag does, and each goes on where the other was.
func TestSetTags(t *testing.T) {
	p, src := newPlace(t), t.TempDir()
	r := p.create(t)
	if err := os.WriteFile(filepath.Join(src, "file"), random(1, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	id := backup(t, r, src)
	first, err := r.LoadSnapshot(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	l := lock(t, r, true)
	s, err := r.SetTags(t.Context(), first, []string{"one", "note=a b"})
	if err == nil {
		s, err = r.SetTags(t.Context(), s, []string{"one", "two"})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	tags, original := p.resticTags(t)
	if len(tags) != 1 || !slices.Equal(tags[s.ID.String()], []string{"one", "two"}) || original[s.ID.String()] != id.String() {
		t.Errorf("restic sees %v, originals %v; the snapshot is %s and was %s", tags, original, s.ID, id)
	}
	p.restic(t, "tag", "--add", "three", s.ID.String())
	all, err := r.Snapshots(t.Context())
	if err != nil || len(all) != 1 || !slices.Equal(all[0].Tags, []string{"one", "two", "three"}) || *all[0].Original != id {
		t.Fatalf("after restic tag: %+v, %v", all, err)
	}
	if all[0].Tree != first.Tree || !all[0].Time.Equal(first.Time) || !slices.Equal(all[0].Paths, first.Paths) {
		t.Errorf("the backup is another one: %+v, was %+v", all[0], first)
	}
	p.check(t)
}

// Whoever dies between the new snapshot and the removal of the old one leaves
// both, and the next change puts that right; another backup is left alone.
func TestSetTagsCutOff(t *testing.T) {
	be := &watched{}
	r := createIn(t, be, repository.Options{})
	first, err := r.LoadSnapshot(t.Context(), backup(t, r, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	other, err := r.LoadSnapshot(t.Context(), backup(t, r, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	be.before = func(op string, h backend.Handle) error {
		if op == "remove" && h.Type == backend.SnapshotFile {
			return os.ErrPermission
		}
		return nil
	}
	if _, err := r.SetTags(t.Context(), first, []string{"pinned"}); err == nil {
		t.Error("no error though the old one stays")
	}
	if n := be.count(t, backend.SnapshotFile); n != 3 {
		t.Fatalf("%d snapshots, want 3", n)
	}
	be.before = nil
	if _, err := r.SetTags(t.Context(), first, []string{"other"}); err != nil {
		t.Fatal(err)
	}
	all, err := r.Snapshots(t.Context())
	if err != nil || len(all) != 2 || all[0].ID != other.ID && all[1].ID != other.ID {
		t.Errorf("left are %+v, %v", all, err)
	}
}
