package repository_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
)

// A blob that is damaged in one pack is taken from another.
func TestSecondCopy(t *testing.T) {
	p := newPlace(t)
	p.create(t)
	// Two that do not know of each other store the same.
	a, b := p.open(t), p.open(t)
	data := random(1, 1<<20)
	var id repository.ID
	for _, r := range []*repository.Repository{a, b} {
		var err error
		if id, _, err = r.SaveBlob(t.Context(), repository.DataBlob, data); err != nil || r.Flush(t.Context()) != nil {
			t.Fatal(err)
		}
	}
	packs := p.files(t, "data")
	for i, path := range packs {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		change(t, path, flip)
		got, err := p.open(t).LoadBlob(t.Context(), repository.DataBlob, id, nil)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("without copy %d: %v", i, err)
		}
		change(t, path, func([]byte) []byte { return whole })
	}
	for _, path := range packs {
		change(t, path, flip)
	}
	_, err := p.open(t).LoadBlob(t.Context(), repository.DataBlob, id, nil)
	wantError(t, err, repository.ErrDamaged)
}

// An index that restic prune rewrote is read anew.
func TestIndexRewritten(t *testing.T) {
	p, src := newPlace(t), t.TempDir()
	r := p.create(t)
	keep, gone := filepath.Join(src, "keep"), filepath.Join(src, "gone")
	for seed, path := range []string{keep, gone} {
		if err := os.WriteFile(path, random(uint64(seed), 400_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first := backup(t, r, src)
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	backup(t, r, src)
	p.restic(t, "forget", "--prune", "--max-unused", "0", first.String())
	if err := r.LoadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.HasBlob(repository.DataBlob, repository.Hash(random(1, 400_000))) {
		t.Error("a blob that was pruned is still known")
	}
	if !r.HasBlob(repository.DataBlob, repository.Hash(random(0, 400_000))) {
		t.Error("a blob that was kept is not known")
	}
	backup(t, r, src)
	p.check(t)
}

// A writer that is killed at any moment leaves a repository that restic finds
// whole, and that the next writer goes on with.
func TestKilledWriter(t *testing.T) {
	if dir := os.Getenv("REPOSITORY_KILLED"); dir != "" {
		writeForever(t, place{dir: dir})
		return
	}
	p := newPlace(t)
	p.create(t)
	for i := range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledWriter$")
		cmd.Env = append(os.Environ(), "REPOSITORY_KILLED="+p.dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); len(p.files(t, "data")) < 3*(i+1); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the writer does not write")
			}
		}
		time.Sleep(time.Duration(17*i) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		r := p.open(t)
		l := lock(t, r, true) // the dead writer's lock is in nobody's way
		if err := readAll(t.Context(), p); err != nil {
			t.Errorf("round %d: %v", i, err)
		}
		if err := l.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
		backup(t, r, t.TempDir())
		p.check(t)
	}
}

// writeForever makes one backup after the other until it is killed.
func writeForever(t *testing.T, p place) {
	r := p.open(t)
	lock(t, r, false)
	src := t.TempDir()
	for i := uint64(os.Getpid()) << 8; ; i++ {
		if err := os.WriteFile(filepath.Join(src, "file"), random(i, 20<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		backup(t, r, src)
	}
}
