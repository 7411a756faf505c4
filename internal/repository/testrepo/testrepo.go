// Package testrepo makes repositories in folders, which drydock and the real restic
// both use, for tests.
package testrepo

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

// Password is that of each repository.
const Password = "a password"

// Repo is a repository that the real restic can open.
type Repo struct {
	*repository.Repository
	Dir     string // where it lies
	KeyFile string // holds Password
}

// New makes an empty repository, whose key costs little.
func New(t testing.TB) Repo {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "repo")
	r, err := repository.Create(t.Context(), local.New(dir), []byte(Password),
		repository.CreateOptions{KDF: &crypto.Params{N: 1 << 10, R: 8, P: 1}})
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Repo{r, dir, key}
}

// Restic runs restic on the repository, which must succeed, and returns what it
// prints.
func (r Repo) Restic(t testing.TB, args ...string) string {
	t.Helper()
	return r.ResticIn(t, "", args...)
}

// ResticIn does that in a folder.
func (r Repo) ResticIn(t testing.TB, folder string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "restic", append([]string{"-r", r.Dir, "--password-file", r.KeyFile, "--no-cache"}, args...)...)
	c.Dir = folder
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("restic %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}
