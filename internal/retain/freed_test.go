package retain_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/retain"
)

// packed is the size of all packs.
func (p place) packed(t *testing.T) int64 {
	t.Helper()
	var size int64
	for _, path := range p.files(t, "data/*") {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	return size
}

// What a plan says would be freed is what the real restic prune frees, but for
// the headers of packs.
func TestFreed(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	now := time.Now()
	shared := files{"a": 1, "b": 2}
	save(t, r, "mail", now.Add(-9*time.Hour), files{"d": 3}) // 3 is needed elsewhere
	first := save(t, r, "web", now.Add(-8*time.Hour), files{"a": 1, "b": 4, "d": 3})
	second := save(t, r, "web", now.Add(-7*time.Hour), files{"a": 1, "b": 4, "c": 5})
	save(t, r, "web", now.Add(-6*time.Hour), shared)
	p.restic(t, "backup", p.passwordFile) // of another program

	for _, c := range []struct {
		remove []*repository.Snapshot
		want   int64 // files
	}{
		{nil, 0},
		{[]*repository.Snapshot{first}, 0},         // 4 is in the second too
		{[]*repository.Snapshot{second}, 1},        // 5
		{[]*repository.Snapshot{first, second}, 2}, // 4, 5
		{[]*repository.Snapshot{second, first}, 2}, // in any order
		{[]*repository.Snapshot{first, first, first}, 0},
	} {
		got, err := retain.Freed(t.Context(), r, c.remove)
		if err != nil {
			t.Fatal(err)
		}
		// A tree takes a few hundred bytes.
		if got < c.want*fileSize || got > c.want*(fileSize+1000)+2000 {
			t.Errorf("removing %d backups frees %d bytes, want about %d", len(c.remove), got, c.want*fileSize)
		}
	}
	forecast, err := retain.Freed(t.Context(), r, []*repository.Snapshot{first, second})
	if err != nil {
		t.Fatal(err)
	}
	before := p.packed(t)
	results, err := retain.Apply(t.Context(), r, []retain.VM{{Name: "web", Policy: retain.Policy{Last: 1}}}, now, 0)
	if err != nil || len(results[0].Removed) != 2 {
		t.Fatalf("%v, %v", results, err)
	}
	p.restic(t, "prune", "--max-unused", "0")
	if freed := before - p.packed(t); freed < forecast || freed > forecast+4000 {
		t.Errorf("prune freed %d bytes, the plan said %d", freed, forecast)
	}
	p.check(t)
}

// A backup whose tree is not there makes what others need unknown.
func TestFreedUnknown(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	goes := save(t, r, "web", time.Now().Add(-time.Hour), files{"a": 1})
	lost := save(t, r, "mail", time.Now().Add(-time.Hour), files{"b": 2})
	p.loseTree(t, lost)
	if _, err := retain.Freed(t.Context(), p.open(t), []*repository.Snapshot{goes}); err == nil {
		t.Error("no error though a tree is not there")
	}
	for _, path := range p.files(t, "snapshots") {
		if filepath.Base(path) == lost.ID.String() {
			damage(t, path)
		}
	}
	if _, err := retain.Freed(t.Context(), r, []*repository.Snapshot{goes}); err == nil {
		t.Error("no error though a snapshot cannot be read")
	}
}

// damage changes one byte of a file.
func damage(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
