package restore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
)

// save saves a snapshot that is found by its time.
func (r repo) save(t *testing.T, host string, at time.Time, tags ...string) *repository.Snapshot {
	t.Helper()
	tree, err := repository.EncodeTree(nil)
	if err != nil {
		t.Fatal(err)
	}
	root, _, err := r.SaveTree(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := &repository.Snapshot{Time: at, Hostname: host, Tags: tags, Paths: []string{"/"}, Tree: root}
	if _, err := r.SaveSnapshot(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFind(t *testing.T) {
	r := newRepo(t)
	day := time.Date(2026, 11, 24, 0, 0, 0, 0, time.Local)
	early := r.save(t, "web", day, "drydock", "vm=web")
	late := r.save(t, "web", day.Add(23*time.Hour), "drydock")
	next := r.save(t, "web", day.AddDate(0, 0, 1), "drydock")
	r.save(t, "web", day.AddDate(0, 0, 2)) // not drydock's
	other := r.save(t, "db", day.AddDate(0, 0, 3), "drydock")

	for spec, want := range map[string]*repository.Snapshot{
		"latest":                                next,
		"2026-11-24":                            late,
		"2026-11-25":                            next,
		day.Add(time.Hour).Format(time.RFC3339): early,
		day.AddDate(1, 0, 0).Format(time.RFC3339): next,
		early.ID.String():                         early,
		late.ID.String()[:12]:                     late,
	} {
		if s, err := restore.Find(t.Context(), r.Repository, "web", spec); err != nil || s.ID != want.ID {
			t.Errorf("%s: %v, %v; want %s", spec, s, err, want.ID.Short())
		}
	}
	for _, c := range []struct {
		vm, spec string
		is       error
		says     string
	}{
		{"web", "2026-11-23", restore.ErrNoBackup, early.ID.Short()},
		{"web", "2026-11-23T00:00:00Z", restore.ErrNoBackup, late.ID.Short()},
		{"web", other.ID.String(), restore.ErrNoBackup, next.ID.Short()},
		{"mail", "latest", restore.ErrNoBackup, "this VM has none"},
		{"web", "newest", restore.ErrSpec, "latest"},
		{"web", "", restore.ErrSpec, "latest"},
	} {
		_, err := restore.Find(t.Context(), r.Repository, c.vm, c.spec)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s@%s: %v", c.vm, c.spec, err)
		}
	}
	for i := range 16 { // 17 more IDs have 16 first digits
		r.save(t, "many", day.Add(time.Duration(i)*time.Second), "drydock")
	}
	ambiguous(t, r, r.save(t, "many", day.Add(time.Hour), "drydock"))
}

func ambiguous(t *testing.T, r repo, last *repository.Snapshot) {
	t.Helper()
	all, err := r.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := map[string]*repository.Snapshot{}
	for _, s := range all {
		if s.Hostname != last.Hostname {
			continue
		}
		digit := s.ID.String()[:1]
		if twin := first[digit]; twin != nil {
			_, err := restore.Find(t.Context(), r.Repository, s.Hostname, digit)
			if !errors.Is(err, restore.ErrAmbiguous) || !strings.Contains(err.Error(), s.ID.Short()) || !strings.Contains(err.Error(), twin.ID.Short()) {
				t.Errorf("%s: %v", digit, err)
			}
			return
		}
		first[digit] = s
	}
	t.Error("no two IDs begin alike")
}

func TestFindAmongSnapshotsThatCannotBeRead(t *testing.T) {
	r := newRepo(t)
	s := r.save(t, "web", time.Now().Add(-time.Hour), "drydock")
	bad := r.save(t, "web", time.Now(), "drydock")
	path := filepath.Join(r.Dir, "snapshots", bad.ID.String())
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := restore.Find(t.Context(), r.Repository, "web", "latest"); err == nil || !strings.Contains(err.Error(), bad.ID.Short()) || !strings.Contains(err.Error(), s.ID.Short()) {
		t.Errorf("error %v", err)
	}
	if got, err := restore.Find(t.Context(), r.Repository, "web", s.ID.Short()); err != nil || got.ID != s.ID {
		t.Errorf("%v, %v", got, err)
	}
}

func TestLostPackCostsItsFiles(t *testing.T) {
	src := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := newRepo(t)
	r.backup(t, src)
	before := packs(t, r)
	if err := os.WriteFile(filepath.Join(src, "c"), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := r.backup(t, src)
	tree := openTree(t, r, s)
	// The new packs hold the folder, which was read already, and the content of c.
	for path := range packs(t, r) {
		if !before[path] {
			spoil(t, path)
		}
	}
	dst := filepath.Join(t.TempDir(), "to")
	rep := run(t, tree, dst, restore.Options{})
	reports(t, rep, "/c: ")
	if got := names(t, dst); len(got) != 2 || rep.Failed != 1 || rep.Files != 2 {
		t.Errorf("there is %q; report %+v", got, rep)
	}
	n, err := disk.Lookup(tree, []byte("/c"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := tree.Open(n.Ino)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 3), 0); !errors.Is(err, disk.ErrCorrupt) || !errors.Is(err, repository.ErrDamaged) {
		t.Errorf("error %v", err)
	}
}

// spoil zeros a file, and leaves it as long as it is.
func spoil(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, make([]byte, info.Size()), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func packs(t *testing.T, r repo) map[string]bool {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(r.Dir, "data", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for _, p := range list {
		set[p] = true
	}
	return set
}
