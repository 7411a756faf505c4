package repository_test

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
)

// What we write, restic checks, lists, restores, forgets and prunes, and we read
// what is left.
func TestResticReadsOurs(t *testing.T) {
	p, src := newPlace(t), t.TempDir()
	makeTree(t, src, 1)
	r := p.create(t)
	first := backup(t, r, src)
	p.check(t)

	listing := p.restic(t, "ls", "--long", first.String())
	for _, want := range []string{"/sub/dir/deep", "urwxr-xr-x", "20971520", "1234  5678"} {
		if !strings.Contains(listing, want) {
			t.Errorf("restic ls has no %q:\n%s", want, listing)
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	p.restic(t, "restore", first.String(), "--target", out)
	sameTree(t, src, out)
	sameMeta(t, src, out)

	if err := os.WriteFile(filepath.Join(src, "new"), random(99, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	r = p.open(t)
	second := backup(t, r, src)
	p.restic(t, "forget", first.String(), "--prune")
	p.check(t)

	r = p.open(t)
	snapshots, err := r.Snapshots(t.Context())
	if err != nil || len(snapshots) != 1 || snapshots[0].ID != second {
		t.Fatalf("after forget: %v, %v", snapshots, err)
	}
	again := filepath.Join(t.TempDir(), "again")
	restore(t, r, snapshots[0].Tree, again)
	sameTree(t, src, again)
}

// sameMeta compares what restic put back of some files.
func sameMeta(t *testing.T, want, got string) {
	t.Helper()
	for _, name := range []string{"small", "text", "many", "link"} {
		stat := "stat=%a %u %g %y %h %F"
		if name == "many" {
			stat = "stat=%a %u %g %y"
		}
		a, b := output(t, "stat", "-c", stat, filepath.Join(want, name)), output(t, "stat", "-c", stat, filepath.Join(got, name))
		if a != b {
			t.Errorf("%s: restored as %q, want %q", name, b, a)
		}
	}
	x := xattrs(t, filepath.Join(got, "small"))
	if len(x) != 2 {
		t.Errorf("small was restored with xattrs %q", x)
	}
}

func TestWeReadRestics(t *testing.T) {
	for _, test := range []struct {
		name         string
		init, backup []string
		version      int
	}{
		{"v1", []string{"--repository-version", "1"}, nil, 1},
		{"v2 auto", nil, nil, 2},
		{"v2 off", nil, []string{"--compression", "off", "--pack-size", "4"}, 2},
		{"v2 max", nil, []string{"--compression", "max", "--pack-size", "128"}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p, src := newPlace(t), t.TempDir()
			makeTree(t, src, 2)
			p.restic(t, append([]string{"init"}, test.init...)...)
			p.restic(t, append([]string{"backup", src}, test.backup...)...)
			r := p.open(t)
			if r.Version() != test.version {
				t.Errorf("version %d, want %d", r.Version(), test.version)
			}
			out := t.TempDir()
			restoreSnapshot(t, r, out)
			sameTree(t, src, filepath.Join(out, src))
			checkPacks(t, r)
			if test.version == 1 {
				refusesWrites(t, r)
				return
			}
			sharesWith(t, p, r, src)
		})
	}
}

// restoreSnapshot restores the only snapshot.
func restoreSnapshot(t *testing.T, r *repository.Repository, out string) {
	t.Helper()
	snapshots, err := r.Snapshots(t.Context())
	if err != nil || len(snapshots) != 1 {
		t.Fatalf("snapshots: %v, %v", snapshots, err)
	}
	restore(t, r, snapshots[0].Tree, out)
}

func checkPacks(t *testing.T, r *repository.Repository) {
	t.Helper()
	packs := r.Packs()
	if len(packs) == 0 {
		t.Error("there are no packs")
	}
	for _, id := range packs {
		if err := r.CheckPack(t.Context(), id, true); err != nil {
			t.Error(err)
		}
	}
}

func refusesWrites(t *testing.T, r *repository.Repository) {
	t.Helper()
	_, _, err := r.SaveBlob(t.Context(), repository.DataBlob, []byte("x"))
	wantError(t, err, repository.ErrReadOnly)
	_, err = r.SaveSnapshot(t.Context(), &repository.Snapshot{})
	wantError(t, err, repository.ErrReadOnly)
}

// sharesWith stores the same files once more: nothing but trees is new, since the
// chunks are the same; and restic stores nothing when it backs up again.
func sharesWith(t *testing.T, p place, r *repository.Repository, src string) {
	t.Helper()
	before := len(p.files(t, "data"))
	for _, name := range []string{"random", "text", "zeros", "one chunk", "small"} {
		f, err := os.Open(filepath.Join(src, name))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		if _, size, stored, err := r.SaveStream(t.Context(), f); err != nil || stored != 0 {
			t.Errorf("%s: stored %d of %d bytes again, %v", name, stored, size, err)
		}
	}
	backup(t, r, src)
	p.check(t)
	if after := len(p.files(t, "data")); after != before+1 {
		t.Errorf("%d packs became %d; want one more, of trees", before, after)
	}
}

// Any of several passwords opens.
func TestSeveralKeys(t *testing.T) {
	p := newPlace(t)
	p.create(t)
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("battery staple"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.restic(t, "key", "add", "--new-password-file", other)
	for _, pw := range []string{password, "battery staple"} {
		if _, err := repository.Open(t.Context(), local.New(p.dir), []byte(pw), repository.Options{}); err != nil {
			t.Errorf("%q: %v", pw, err)
		}
	}
	_, err := repository.Open(t.Context(), local.New(p.dir), []byte("guess"), repository.Options{})
	wantError(t, err, repository.ErrWrongKey)
}

// Restic reads what is stored with each compression, and each saves more than the one
// before it.
func TestCompressions(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "program"), program[:4<<20], 0o600); err != nil {
		t.Fatal(err)
	}
	last := int64(math.MaxInt64)
	for _, c := range []repository.Compression{
		repository.CompressionOff, repository.CompressionFastest, repository.CompressionAuto, repository.CompressionBetter, repository.CompressionMax,
	} {
		p := newPlace(t)
		r, err := repository.Create(t.Context(), local.New(p.dir), []byte(password), repository.CreateOptions{KDF: cheap, Options: repository.Options{Compression: c}})
		if err != nil {
			t.Fatal(err)
		}
		backup(t, r, src)
		p.check(t)
		stored := r.Added().Stored
		if stored >= last {
			t.Errorf("%s: %d bytes, and %d with the one before", c, stored, last)
		}
		last = stored
	}
}
