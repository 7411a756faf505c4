package repository_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
)

// storage servers change, cut and lose files. The error names the file.

// flip changes one byte in the middle.
func flip(data []byte) []byte {
	data[len(data)/2] ^= 0x10
	return data
}

func cut(data []byte) []byte { return data[:len(data)-7] }

// readAll does what a restore and a check do, and returns every error.
func readAll(ctx context.Context, p place) error {
	r, err := repository.Open(ctx, local.New(p.dir), []byte(password), repository.Options{})
	if err != nil {
		return err
	}
	snapshots, err := r.Snapshots(ctx)
	errs := []error{err, r.LoadIndex(ctx)}
	for _, s := range snapshots {
		errs = append(errs, readTree(ctx, r, s.Tree))
	}
	for _, id := range r.Packs() {
		errs = append(errs, r.CheckPack(ctx, id, true))
	}
	return errors.Join(errs...)
}

func readTree(ctx context.Context, r *repository.Repository, id repository.ID) error {
	folder, err := r.LoadTree(ctx, id)
	if err != nil {
		return err
	}
	nodes, err := folder.Nodes()
	errs := []error{err}
	for _, n := range nodes {
		for _, c := range n.Content {
			_, err := r.LoadBlob(ctx, repository.DataBlob, c, nil)
			errs = append(errs, err)
		}
		if n.Subtree != nil {
			errs = append(errs, readTree(ctx, r, *n.Subtree))
		}
	}
	return errors.Join(errs...)
}

// smallRepository has one snapshot of a few files in it.
func smallRepository(t *testing.T) place {
	t.Helper()
	p, src := newPlace(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "file"), random(1, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	backup(t, p.create(t), src)
	if err := readAll(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDamage(t *testing.T) {
	for _, under := range []string{"config", "keys", "snapshots", "index", "data"} {
		for name, edit := range map[string]func([]byte) []byte{"changed": flip, "cut": cut} {
			t.Run(under+" "+name, func(t *testing.T) {
				p := smallRepository(t)
				for _, path := range p.files(t, under) {
					whole, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					change(t, path, edit)
					err = readAll(t.Context(), p)
					if !errors.Is(err, repository.ErrDamaged) || !strings.Contains(err.Error(), filepath.Base(path)) {
						t.Errorf("%s: %v", path, err)
					}
					change(t, path, func([]byte) []byte { return whole })
				}
				if err := readAll(t.Context(), p); err != nil {
					t.Errorf("put right again: %v", err)
				}
			})
		}
	}
}

func TestMissingFiles(t *testing.T) {
	p := smallRepository(t)
	if err := os.RemoveAll(filepath.Join(p.dir, "index")); err != nil {
		t.Fatal(err)
	}
	err := readAll(t.Context(), p)
	wantError(t, err, repository.ErrBlobNotFound)
	if !strings.Contains(err.Error(), "repair index") {
		t.Errorf("no hint: %v", err)
	}
	p.restic(t, "rebuild-index")
	if err := readAll(t.Context(), p); err != nil {
		t.Errorf("after restic rebuild-index: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(p.dir, "data")); err != nil {
		t.Fatal(err)
	}
	wantError(t, readAll(t.Context(), p), backend.ErrNotExist)
	if err := os.RemoveAll(filepath.Join(p.dir, "keys")); err != nil {
		t.Fatal(err)
	}
	if err := readAll(t.Context(), p); err == nil || errors.Is(err, repository.ErrWrongKey) {
		t.Errorf("without keys: %v", err)
	}
	if err := os.Remove(filepath.Join(p.dir, "config")); err != nil {
		t.Fatal(err)
	}
	wantError(t, readAll(t.Context(), p), repository.ErrNotExist)
}

// A file that is another's, whole and authentic, is noticed by its hash.
func TestSwappedFiles(t *testing.T) {
	p, src := newPlace(t), t.TempDir()
	r := p.create(t)
	backup(t, r, src)
	backup(t, r, src)
	files := p.files(t, "snapshots")
	other, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	change(t, files[0], func([]byte) []byte { return other })
	snapshots, err := r.Snapshots(t.Context())
	wantError(t, err, repository.ErrDamaged)
	if len(snapshots) != 1 || snapshots[0].ID.String() != filepath.Base(files[1]) {
		t.Errorf("the other snapshot is hidden: %v", snapshots)
	}
}

func TestWrongKey(t *testing.T) {
	p := newPlace(t)
	p.create(t)
	for _, pw := range []string{"", "wrong", password + "\n"} {
		_, err := repository.Open(t.Context(), local.New(p.dir), []byte(pw), repository.Options{})
		wantError(t, err, repository.ErrWrongKey)
		var e *repository.Error
		if !errors.As(err, &e) || e.Hint == "" {
			t.Errorf("no hint: %v", err)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	p := newPlace(t)
	_, err := repository.Create(t.Context(), local.New(p.dir), nil, repository.CreateOptions{KDF: cheap})
	if err == nil {
		t.Error("an empty password was accepted")
	}
	p.create(t)
	_, err = repository.Create(t.Context(), local.New(p.dir), []byte(password), repository.CreateOptions{KDF: cheap})
	wantError(t, err, repository.ErrExist)
	// A lost config file is no invitation to make another key.
	backup(t, p.open(t), t.TempDir())
	if err := os.Remove(filepath.Join(p.dir, "config")); err != nil {
		t.Fatal(err)
	}
	_, err = repository.Create(t.Context(), local.New(p.dir), []byte(password), repository.CreateOptions{KDF: cheap})
	wantError(t, err, repository.ErrExist)
	if len(p.files(t, "keys")) != 1 {
		t.Error("the key is gone")
	}
	for _, o := range []repository.Options{{PackSize: 1}, {PackSize: 1 << 30}, {Compression: "9"}} {
		if _, err := repository.Open(t.Context(), local.New(p.dir), []byte(password), o); err == nil {
			t.Errorf("%+v: accepted", o)
		}
	}
}

// A creation that died after its key and before its config can be done again.
func TestCreateAgain(t *testing.T) {
	p := newPlace(t)
	p.create(t)
	if err := os.Remove(filepath.Join(p.dir, "config")); err != nil {
		t.Fatal(err)
	}
	p.create(t)
	if len(p.files(t, "keys")) != 1 {
		t.Error("the key of the dead creation is still there")
	}
	p.open(t)
}

// Without options a key costs what restic's cost.
func TestCreateDefaults(t *testing.T) {
	p := newPlace(t)
	if _, err := repository.Create(t.Context(), local.New(p.dir), []byte(password), repository.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(p.files(t, "keys")[0])
	if err != nil || !strings.Contains(string(key), `"kdf":"scrypt","N":32768,"r":8,`) {
		t.Errorf("the key file is %s, %v", key, err)
	}
	p.check(t)
}

func TestCancelled(t *testing.T) {
	p := smallRepository(t)
	r := p.open(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	_, openErr := repository.Open(ctx, local.New(p.dir), []byte(password), repository.Options{})
	_, listErr := r.Snapshots(ctx)
	_, lockErr := r.Lock(ctx, false)
	for i, err := range []error{openErr, listErr, lockErr, r.LoadIndex(ctx), r.Flush(ctx)} {
		if i < 4 && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if locks := p.files(t, "locks"); len(locks) != 0 {
		t.Errorf("left %v", locks)
	}
}
