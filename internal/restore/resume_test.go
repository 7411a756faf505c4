package restore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
)

// TestResume: a restore that was cut off is gone on with. What it had made whole is
// kept, with its hardlinks; what it had not is made, and what it left is removed.
func TestResume(t *testing.T) {
	src := treetest.Make(t, resticLoses)
	r := newRepo(t)
	tree := openTree(t, r, r.backup(t, src))
	dst := filepath.Join(t.TempDir(), "to")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	first, err := restore.Run(ctx, tree, dst, restore.Options{Setuid: true, Devices: true, Progress: func(p restore.Report) {
		if p.Files == 4 {
			stop()
		}
	}})
	if !errors.Is(err, context.Canceled) || first.Files < 4 {
		t.Fatalf("%v, %+v", err, first)
	}
	// As after a kill: a file that is not whole, one that somebody changed, and one
	// of the user's own.
	left := filepath.Join(dst, "etc", ".drydock-ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	for _, path := range []string{left, filepath.Join(dst, "etc", "hostname"), filepath.Join(dst, ".drydock-notes")} {
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := restore.Run(t.Context(), tree, dst, restore.Options{}); !errors.Is(err, restore.ErrTarget) {
		t.Errorf("without resume: %v", err)
	}
	rep := run(t, tree, dst, restore.Options{Setuid: true, Devices: true, Resume: true})
	if rep.Kept == 0 || rep.Kept >= rep.Files || rep.WarningsTotal > 0 {
		t.Errorf("%+v", rep)
	}
	if err := os.Remove(filepath.Join(dst, ".drydock-notes")); err != nil {
		t.Error(err)
	}
	again := run(t, tree, dst, restore.Options{Setuid: true, Devices: true, Resume: true})
	if again.Kept != again.Files || again.Written != 0 {
		t.Errorf("all is there, and %+v", again)
	}
	treetest.Compare(t, treetest.List(t, dst), treetest.List(t, src))
}
