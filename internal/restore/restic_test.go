package restore_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

const password = "a password"

// repo is a repository that the real restic writes.
type repo struct {
	*repository.Repository
	dir, keyFile string
}

func newRepo(t *testing.T) repo {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "repo")
	r, err := repository.Create(t.Context(), local.New(dir), []byte(password),
		repository.CreateOptions{KDF: &crypto.Params{N: 1 << 10, R: 8, P: 1}})
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return repo{r, dir, key}
}

func (r repo) restic(t *testing.T, args ...string) string {
	t.Helper()
	return r.resticIn(t, "", args...)
}

func (r repo) resticIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "restic", append([]string{"-r", r.dir, "--password-file", r.keyFile, "--no-cache"}, args...)...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("restic %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// backup lets the real restic back a folder up, as the content of the root
// directory, and returns the snapshot.
func (r repo) backup(t *testing.T, dir string, args ...string) *repository.Snapshot {
	t.Helper()
	r.resticIn(t, dir, append([]string{"backup", "--host", "web", "--tag", "drydock", "."}, args...)...)
	all, err := r.Snapshots(t.Context())
	if err != nil || len(all) == 0 {
		t.Fatalf("snapshots: %d, %v", len(all), err)
	}
	return all[len(all)-1]
}
