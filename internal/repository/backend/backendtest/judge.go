package backendtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

const password = "correct horse"

// Place is how the real restic reaches where a backend is.
type Place struct {
	Location   string
	Env, Flags []string // for restic
	AppendOnly bool     // nothing but locks can be removed
	Parity     int      // in percent; 0 for none
}

// Judge lets the real restic judge a place: it checks and dumps what is written
// through be, and be reads what restic has written there. The place is empty.
func Judge(t *testing.T, be backend.Backend, p Place) {
	t.Helper()
	restic := resticAt(t, p)
	kdf := crypto.Params{N: 1 << 10, R: 8, P: 1}
	r, err := repository.Create(t.Context(), be, []byte(password), repository.CreateOptions{KDF: &kdf, Options: repository.Options{Parity: p.Parity}})
	if err != nil {
		t.Fatal(err)
	}
	content := random(9 << 20)
	ours := backup(t, r, "file", content)
	if out := restic("check", "--read-data"); !strings.Contains(out, "no errors were found") {
		t.Errorf("restic check:\n%s", out)
	}
	if out := restic("dump", ours.String(), "/file"); out != string(content) {
		t.Errorf("restic dumps %d bytes, and not those that were stored", len(out))
	}

	src := t.TempDir()
	theirs := random(3 << 20)
	if err := os.WriteFile(filepath.Join(src, "theirs"), theirs, 0o600); err != nil {
		t.Fatal(err)
	}
	restic("backup", "--host", "theirs", src)
	if r, err = repository.Open(t.Context(), be, []byte(password), repository.Options{Parity: p.Parity}); err != nil {
		t.Fatal(err)
	}
	if err := r.LoadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	snapshots, err := r.Snapshots(t.Context())
	if err != nil || len(snapshots) != 2 {
		t.Fatalf("%d snapshots, %v", len(snapshots), err)
	}
	for _, s := range snapshots {
		if s.Hostname == "theirs" && !bytes.Equal(read(t, r, s.Tree, "theirs"), theirs) {
			t.Error("what restic stored was read as something else")
		}
	}
	for _, pack := range r.Packs() {
		if err := r.CheckPack(t.Context(), pack, true); err != nil {
			t.Error(err)
		}
	}
	if p.Parity != 0 {
		judgeParity(t, be, r, restic)
	}
	if err := remove(t.Context(), r, ours); (err != nil) != p.AppendOnly {
		t.Errorf("remove a snapshot: %v", err)
	}
	if out := restic("snapshots"); strings.Contains(out, ours.Short()) != p.AppendOnly {
		t.Errorf("restic snapshots:\n%s", out)
	}
}

// remove removes a snapshot under the lock that it wants.
func remove(ctx context.Context, r *repository.Repository, id repository.ID) error {
	lock, err := r.Lock(ctx, true)
	if err != nil {
		return err
	}
	err = r.RemoveSnapshot(lock.Context(), id)
	if uerr := lock.Unlock(ctx); uerr != nil {
		return fmt.Errorf("unlock: %w", uerr)
	}
	return err
}

// backup stores one file under a lock, and returns the snapshot.
func backup(t *testing.T, r *repository.Repository, name string, content []byte) repository.ID {
	t.Helper()
	lock, err := r.Lock(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	blobs, size, _, err := r.SaveStream(t.Context(), bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	tree, err := repository.EncodeTree([]repository.Node{{
		Name: name, Type: repository.NodeFile, Mode: 0o600, Size: uint64(size), Content: blobs,
		ModTime: now, AccessTime: now, ChangeTime: now,
	}})
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
	id, err := r.SaveSnapshot(t.Context(), &repository.Snapshot{Time: now, Tree: root, Paths: []string{"/"}, Hostname: "ours"})
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	return id
}

// read returns the content of the file called name, in whatever folder it is.
func read(t *testing.T, r *repository.Repository, tree repository.ID, name string) []byte {
	t.Helper()
	folder, err := r.LoadTree(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := folder.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.Subtree != nil {
			if found := read(t, r, *n.Subtree, name); found != nil {
				return found
			}
		}
		if n.Name != name {
			continue
		}
		var out []byte
		for _, id := range n.Content {
			blob, err := r.LoadBlob(t.Context(), repository.DataBlob, id, nil)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, blob...)
		}
		return out
	}
	return nil
}

// resticAt returns what runs the real restic on a place, and fails the test when it
// fails.
func resticAt(t *testing.T, p Place) func(args ...string) string {
	t.Helper()
	path, err := exec.LookPath("restic")
	if err != nil {
		t.Fatalf("restic is missing: install Debian's package of that name: %v", err)
	}
	return func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), path, slices.Concat([]string{"--no-cache", "-r", p.Location}, p.Flags, args)...)
		cmd.Env = append(os.Environ(), "RESTIC_PASSWORD="+password)
		cmd.Env = append(cmd.Env, p.Env...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("restic %s: %v\n%s%s", strings.Join(args, " "), err, out, &stderr)
		}
		return string(out)
	}
}
