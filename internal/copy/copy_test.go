package copy_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/copy"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// place is a repository that the real restic can open.
type place struct {
	t             *testing.T
	dir, password string
}

func newPlace(t *testing.T, password string) place {
	t.Helper()
	p := place{t, filepath.Join(t.TempDir(), "repo"), password}
	_, err := repository.Create(t.Context(), local.New(p.dir), []byte(password), repository.CreateOptions{KDF: &crypto.Params{N: 1 << 10, R: 8, P: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p place) restic(args ...string) string {
	p.t.Helper()
	path, err := exec.LookPath("restic")
	if err != nil {
		p.t.Fatalf("restic is missing: install Debian's package of that name: %v", err)
	}
	c := exec.Command(path, append([]string{"--no-cache", "-r", p.dir}, args...)...)
	c.Env = append(os.Environ(), "RESTIC_PASSWORD="+p.password)
	out, err := c.CombinedOutput()
	if err != nil {
		p.t.Fatalf("restic %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (p place) open(be backend.Backend) *repository.Repository {
	p.t.Helper()
	r, err := repository.Open(p.t.Context(), be, []byte(p.password), repository.Options{})
	if err == nil {
		err = r.LoadIndex(p.t.Context())
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

func run(t *testing.T, from, to *repository.Repository) (*copy.Report, error) {
	t.Helper()
	all, err := from.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return copy.Run(t.Context(), from, to, all)
}

// fill makes two backups, of which the second shares most with the first.
func fill(t *testing.T, p place) (src string) {
	t.Helper()
	src = t.TempDir()
	for name, size := range map[string]int{"a/b/large": 3 << 20, "a/small": 10, "empty": 0} {
		file := filepath.Join(src, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(strings.Repeat(name[:1]+"x", size/2)), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	p.restic("backup", "--host", "web", src)
	if err := os.WriteFile(filepath.Join(src, "new"), []byte("since then"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.restic("backup", "--host", "web", src)
	return src
}

// The real restic finds in the copy what was in the original, and nothing is copied
// twice: not by us, nor by restic copy.
func TestCopy(t *testing.T) {
	from, to := newPlace(t, "one key"), newPlace(t, "another key")
	src := fill(t, from)
	rep, err := run(t, from.open(local.New(from.dir)), to.open(local.New(to.dir)))
	if err != nil || rep.Copied != 2 || rep.Present != 0 || rep.Blobs == 0 || rep.Bytes < 1<<20 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if out := to.restic("check", "--read-data"); !strings.Contains(out, "no errors were found") {
		t.Errorf("restic check: %s", out)
	}
	out := t.TempDir()
	to.restic("restore", "latest", "--target", out)
	if diff, err := exec.Command("diff", "-r", src, filepath.Join(out, src)).CombinedOutput(); err != nil {
		t.Errorf("the copy restores as something else: %v\n%s", err, diff)
	}
	rep, err = run(t, from.open(local.New(from.dir)), to.open(local.New(to.dir)))
	if err != nil || rep.Copied != 0 || rep.Present != 2 || rep.Blobs != 0 {
		t.Errorf("again: %+v, %v", rep, err)
	}
	// And back: what came from there is there.
	rep, err = run(t, to.open(local.New(to.dir)), from.open(local.New(from.dir)))
	if err != nil || rep.Copied != 0 || rep.Present != 2 {
		t.Errorf("back: %+v, %v", rep, err)
	}
}

// cut is a backend that ends after some packs.
type cut struct {
	backend.Backend
	left int
}

var errCut = errors.New("cut off")

func (c *cut) Save(ctx context.Context, h backend.Handle, data []byte) error {
	if h.Type == backend.SnapshotFile {
		if c.left == 0 {
			return errCut
		}
		c.left--
	}
	return c.Backend.Save(ctx, h, data)
}

// A copy that was cut off is finished by the next.
func TestCutOff(t *testing.T) {
	from, to := newPlace(t, "key"), newPlace(t, "key")
	fill(t, from)
	if _, err := run(t, from.open(local.New(from.dir)), to.open(&cut{Backend: local.New(to.dir), left: 1})); !errors.Is(err, errCut) {
		t.Fatalf("cut off: %v", err)
	}
	rep, err := run(t, from.open(local.New(from.dir)), to.open(local.New(to.dir)))
	if err != nil || rep.Copied != 1 || rep.Present != 1 {
		t.Errorf("after that: %+v, %v", rep, err)
	}
	to.restic("check", "--read-data")
}

// A damaged backup is not copied, and does not keep the others.
func TestDamage(t *testing.T) {
	from, to := newPlace(t, "key"), newPlace(t, "key")
	fill(t, from)
	first := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(first, []byte("what will be damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	packs := func() map[string]bool {
		files, err := filepath.Glob(filepath.Join(from.dir, "data", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		set := map[string]bool{}
		for _, f := range files {
			set[f] = true
		}
		return set
	}
	before := packs()
	from.restic("backup", "--host", "bad", first)
	for f := range packs() {
		if before[f] {
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		data[10] ^= 1
		if err := errors.Join(os.Chmod(f, 0o600), os.WriteFile(f, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	rep, err := run(t, from.open(local.New(from.dir)), to.open(local.New(to.dir)))
	if !errors.Is(err, repository.ErrDamaged) || !strings.Contains(err.Error(), `of "bad"`) || rep.Copied != 2 {
		t.Errorf("%+v, %v", rep, err)
	}
	to.restic("check", "--read-data")
	if out := to.restic("snapshots"); strings.Contains(out, "bad") {
		t.Errorf("the damaged backup was copied:\n%s", out)
	}
}
