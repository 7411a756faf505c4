package local_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/backendtest"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/testmount"
)

func TestBackend(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		return local.New(filepath.Join(t.TempDir(), "made", "when", "needed"))
	})
}

func TestRestic(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	backendtest.Judge(t, local.New(dir), backendtest.Place{Location: dir, Parity: 5})
}

var name = strings.Repeat("ab", 32)

func TestLayout(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0)) // modes do not hang on it
	dir := t.TempDir()
	be := local.New(dir)
	for h, path := range map[backend.Handle]string{
		{Type: backend.ConfigFile}:                          "config",
		{Type: backend.PackFile, Name: name}:                "data/ab/" + name,
		{Type: backend.SnapshotFile, Name: name}:            "snapshots/" + name,
		{Type: backend.IndexFile, Name: name}:               "index/" + name,
		{Type: backend.KeyFile, Name: name}:                 "keys/" + name,
		{Type: backend.LockFile, Name: name[2:] + "00"}:     "locks/" + name[2:] + "00",
		{Type: backend.SnapshotFile, Name: name[2:] + "01"}: "snapshots/" + name[2:] + "01",
	} {
		if err := be.Save(t.Context(), h, []byte("x")); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || info.Mode().Perm() != 0o400 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
		if path != "config" {
			info, err = os.Stat(filepath.Dir(filepath.Join(dir, path)))
			if err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("the folder of %s: %v, %v", path, info, err)
			}
		}
	}
}

// What is no file of a repository is neither listed nor removed.
func TestStrangers(t *testing.T) {
	dir := t.TempDir()
	be := local.New(dir)
	if err := be.Save(t.Context(), backend.Handle{Type: backend.PackFile, Name: name}, nil); err != nil {
		t.Fatal(err)
	}
	strange := filepath.Join(dir, "data", "ab", name[2:]+"00")
	err := errors.Join(
		os.WriteFile(filepath.Join(dir, "data", "ab", name+"-tmp-123"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "data", name), nil, 0o600),
		os.Symlink("/etc/passwd", strange),
		os.Mkdir(filepath.Join(dir, "data", "ab", name[2:]+"01"), 0o700),
	)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = be.List(t.Context(), backend.PackFile, func(info backend.FileInfo) error {
		got = append(got, info.Name)
		return nil
	})
	if err != nil || len(got) != 1 || got[0] != name {
		t.Errorf("listed %v, %v", got, err)
	}
	if _, err := be.Stat(t.Context(), backend.Handle{Type: backend.PackFile, Name: name[2:] + "00"}); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("stat of a symlink: %v", err)
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	be := local.New(dir)
	if err := be.Save(t.Context(), backend.Handle{Type: backend.PackFile, Name: name}, nil); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"." + name + ".123.tmp", name + "-tmp-123"} {
		left := filepath.Join(dir, "data", "ab", file)
		if err := os.WriteFile(left, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := be.Sweep(t.Context(), time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(left); err != nil {
			t.Errorf("a temporary file of a living writer was swept: %v", err)
		}
		if err := be.Sweep(t.Context(), time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the leftover is still there: %v", err)
		}
	}
	if _, err := be.Stat(t.Context(), backend.Handle{Type: backend.PackFile, Name: name}); err != nil {
		t.Errorf("a file was swept: %v", err)
	}
}

// TestFullDisk: what does not fit is one error with the way out, and leaves nothing.
func TestFullDisk(t *testing.T) {
	dir := testmount.Memory(t, "2m")
	be := local.New(dir)
	h := backend.Handle{Type: backend.PackFile, Name: name}
	err := be.Save(t.Context(), h, make([]byte, 3<<20))
	if !errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "\n") || !strings.HasSuffix(err.Error(), "(the repository's disk is full: make room on it)") {
		t.Errorf("error %q", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "data", name[:2])); err != nil || len(left) > 0 {
		t.Errorf("there is %v, %v", left, err)
	}
}
