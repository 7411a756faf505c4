package retain_test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// place is a repository in a folder, and the real restic on it.
type place struct{ dir, passwordFile string }

const password = "correct horse"

func newPlace(t testing.TB) place {
	t.Helper()
	dir := t.TempDir()
	p := place{filepath.Join(dir, "repo"), filepath.Join(dir, "password")}
	if err := os.WriteFile(p.passwordFile, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cheap := &crypto.Params{N: 1 << 10, R: 8, P: 1}
	if _, err := repository.Create(t.Context(), local.New(p.dir), []byte(password), repository.CreateOptions{KDF: cheap}); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p place) open(t testing.TB) *repository.Repository {
	t.Helper()
	r, err := repository.Open(t.Context(), local.New(p.dir), []byte(password), repository.Options{})
	if err == nil {
		err = r.LoadIndex(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// restic runs restic, which must succeed, and returns its standard output.
func (p place) restic(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "restic", append([]string{"--no-cache", "-r", p.dir, "--password-file", p.passwordFile}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("restic %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

func (p place) check(t testing.TB) {
	t.Helper()
	if out := p.restic(t, "check", "--read-data"); !strings.Contains(out, "no errors were found") {
		t.Errorf("restic check:\n%s", out)
	}
}

// ids returns what restic sees as snapshots.
func (p place) ids(t testing.TB) map[string][]string {
	t.Helper()
	var list []struct {
		ID   string
		Tags []string
	}
	if err := json.Unmarshal([]byte(p.restic(t, "snapshots", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	out := make(map[string][]string)
	for _, s := range list {
		out[s.ID] = s.Tags
	}
	return out
}

// files is the content of a backup: one file for each seed, random bytes of it.
type files map[string]uint64

const fileSize = 100_000

func content(seed uint64) []byte {
	p := make([]byte, fileSize)
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	_, _ = rand.NewChaCha8(key).Read(p) // has no error
	return p
}

// save makes a backup of a VM as drydock would.
func save(t testing.TB, r *repository.Repository, vm string, at time.Time, f files, tags ...string) *repository.Snapshot {
	t.Helper()
	s, err := trySave(t, r, vm, at, f, tags...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func trySave(t testing.TB, r *repository.Repository, vm string, at time.Time, f files, tags ...string) (*repository.Snapshot, error) {
	t.Helper()
	ctx := t.Context()
	var nodes []repository.Node
	for _, name := range []string{"a", "b", "c", "d"} {
		seed, ok := f[name]
		if !ok {
			continue
		}
		id, _, err := r.SaveBlob(ctx, repository.DataBlob, content(seed))
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, repository.Node{
			Name: name, Type: repository.NodeFile, Mode: 0o644, Size: fileSize, Links: 1, Content: []repository.ID{id},
			ModTime: time.Unix(1, 0), AccessTime: time.Unix(1, 0), ChangeTime: time.Unix(1, 0),
		})
	}
	tree, err := repository.EncodeTree(nodes)
	if err != nil {
		return nil, err
	}
	id, _, err := r.SaveTree(ctx, tree)
	if err != nil {
		return nil, err
	}
	if err := r.Flush(ctx); err != nil {
		return nil, err
	}
	s := &repository.Snapshot{
		Time: at, Tree: id, Paths: []string{"/"}, Hostname: vm, Username: "root",
		Tags: append([]string{backup.TagProgram, "vm=" + vm}, tags...),
	}
	_, err = r.SaveSnapshot(ctx, s)
	return s, err
}

// loseTree removes every index file that names the snapshot's tree alone: the
// snapshot stays, and what it is of is gone.
func (p place) loseTree(t testing.TB, s *repository.Snapshot) {
	t.Helper()
	lost := 0
	for _, path := range p.files(t, "index") {
		name := filepath.Base(path)
		if !strings.Contains(p.restic(t, "cat", "index", name), s.Tree.String()) {
			continue
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		lost++
	}
	if lost != 1 {
		t.Fatalf("%d index files name tree %s", lost, s.Tree.Short())
	}
}

// files returns the paths of the files in a folder of the repository.
func (p place) files(t testing.TB, folder string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(p.dir, folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
