package restore_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/internal/flock"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/restore"
)

// TestLeftoversOfAKilledQCOW2: the next restore removes what a killed one has left, and
// nothing that is in use, or somebody else's.
func TestLeftoversOfAKilledQCOW2(t *testing.T) {
	temp, elsewhere := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temp)
	folder := func(name string, owner int) string {
		path := filepath.Join(temp, name)
		if err := errors.Join(os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "socket"), nil, 0o600), os.Chown(path, owner, owner)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	folder("drydock-nbd-left", 0)
	used, err := flock.TakeFolder(folder("drydock-nbd-used", 0))
	if err != nil {
		t.Fatal(err)
	}
	defer used.Release()
	folder("drydock-nbd-theirs", 12345)
	folder("other", 0)
	if err := errors.Join(os.WriteFile(filepath.Join(elsewhere, "precious"), nil, 0o600), os.Symlink(elsewhere, filepath.Join(temp, "drydock-nbd-link"))); err != nil {
		t.Fatal(err)
	}

	_, tree, _ := wholeDisk(t)
	d, err := tree.Image("data")
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	path := filepath.Join(to, "data.qcow2")
	if err := os.WriteFile(path+restore.PartEnding, []byte("half of it"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := restore.WriteQCOW2(t.Context(), d, path, qemuimg.New(qemuimg.Options{}), restore.ImageOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, temp); !slices.Equal(got, []string{"drydock-nbd-link", "drydock-nbd-theirs", "drydock-nbd-used", "other"}) {
		t.Errorf("in the folder for temporary files there is %q", got)
	}
	if got := names(t, elsewhere); len(got) != 1 {
		t.Errorf("behind the link there is %q", got)
	}
	if got := names(t, to); !slices.Equal(got, []string{"data.qcow2"}) {
		t.Errorf("beside the image there is %q", got)
	}
}
