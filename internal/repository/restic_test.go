package repository_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// The real restic is the judge of what this package writes.

const password = "correct horse"

// place is a folder with a repository, and its password in a file.
type place struct{ dir, passwordFile string }

func newPlace(t testing.TB) place {
	t.Helper()
	p := place{filepath.Join(t.TempDir(), "repo"), filepath.Join(t.TempDir(), "password")}
	if err := os.WriteFile(p.passwordFile, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// command returns a command of restic on the place.
func (p place) command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("restic")
	if err != nil {
		t.Fatalf("restic is missing: install Debian's package of that name: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), path, append([]string{"--no-cache", "-r", p.dir, "--password-file", p.passwordFile}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	return cmd
}

// restic runs restic, which must succeed, and returns what it printed.
func (p place) restic(t testing.TB, args ...string) string {
	t.Helper()
	out, err := p.command(t, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("restic %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// check lets restic read everything and find nothing.
func (p place) check(t testing.TB) {
	t.Helper()
	out := p.restic(t, "check", "--read-data")
	if !strings.Contains(out, "no errors were found") {
		t.Errorf("restic check:\n%s", out)
	}
}

// cheap is what a key costs in tests.
var cheap = &crypto.Params{N: 1 << 10, R: 8, P: 1}

func (p place) create(t testing.TB) *repository.Repository {
	t.Helper()
	r, err := repository.Create(t.Context(), local.New(p.dir), []byte(password), repository.CreateOptions{KDF: cheap})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// open opens the place and loads the index.
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

// sameTree fails unless two folders hold the same.
func sameTree(t testing.TB, want, got string) {
	t.Helper()
	// diff takes any two FIFOs to be different.
	out, err := exec.CommandContext(t.Context(), "diff", "-r", "--no-dereference", "-x", "fifo", want, got).CombinedOutput()
	if err != nil {
		t.Errorf("%s and %s differ: %v\n%.2000s", want, got, err, out)
	}
}

// files returns the files of a repository below a folder of it.
func (p place) files(t testing.TB, under string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(filepath.Join(p.dir, under), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			paths = append(paths, path)
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// change overwrites a file of a repository, which is read-only.
func change(t testing.TB, path string, edit func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err == nil {
		err = os.WriteFile(path, edit(bytes.Clone(data)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// output returns what a program that must succeed printed.
func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return string(out)
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}
