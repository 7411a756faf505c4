package backendtest

import (
	"bytes"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// judgeParity makes sure of a repository with parity that each pack has some, also
// those of restic's, that a damaged pack comes back, and that restic goes on as if
// nothing else were there.
func judgeParity(t *testing.T, be backend.Backend, r *repository.Repository, restic func(args ...string) string) {
	t.Helper()
	packs := list(t, be, backend.PackFile)
	if parity := list(t, be, backend.ParityFile); len(packs) < 3 || len(parity) != len(packs) {
		t.Errorf("%d packs, and parity of %d", len(packs), len(parity))
	}
	for _, name := range packs {
		damageAndRepair(t, be, r, backend.Handle{Type: backend.PackFile, Name: name})
	}
	restic("forget", "--prune", "--max-unused", "0", "latest") // theirs
	left := list(t, be, backend.PackFile)
	if n, err := r.RemoveParity(t.Context()); err != nil || len(left) >= len(packs) || n != len(packs)-len(left) {
		t.Errorf("%d packs were %d before a prune, and the parity of %d was removed: %v", len(left), len(packs), n, err)
	}
	if out := restic("check", "--read-data"); !strings.Contains(out, "no errors were found") {
		t.Errorf("restic check beside parity:\n%s", out)
	}
}

func damageAndRepair(t *testing.T, be backend.Backend, r *repository.Repository, h backend.Handle) {
	t.Helper()
	id, err := repository.ParseID(h.Name)
	if err != nil {
		t.Fatal(err)
	}
	info, err := be.Stat(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	good := make([]byte, info.Size)
	if n, err := be.ReadAt(t.Context(), h, good, 0); n < len(good) {
		t.Fatalf("read %s: %v", h, err)
	}
	bad := bytes.Clone(good)
	clear(bad[:len(bad)/25&^1023])
	bad[len(bad)-1] ^= 1
	if err := be.(backend.Replacer).Replace(t.Context(), h, bad); err != nil {
		t.Fatal(err)
	}
	if able, err := r.RepairPack(t.Context(), id, false); !able || err != nil {
		t.Errorf("%s could not be repaired: %v", h, err)
	}
	if err := r.CheckPack(t.Context(), id, true); err == nil {
		t.Errorf("%s was repaired, though nobody asked for it", h)
	}
	if able, err := r.RepairPack(t.Context(), id, true); !able || err != nil {
		t.Errorf("%s was not repaired: %v", h, err)
	}
	if err := r.CheckPack(t.Context(), id, true); err != nil {
		t.Errorf("after the repair: %v", err)
	}
}
