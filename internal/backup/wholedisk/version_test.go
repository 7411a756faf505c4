package wholedisk_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/repository"
)

// version is what the store has of a guest's root disk.
func version(g *guest, name string) wholedisk.Version {
	sum := sha256.Sum256(g.data)
	return wholedisk.Version{
		Disk: "root", Name: name, Size: g.Size(), SHA256: hex.EncodeToString(sum[:]),
		Open: func(context.Context) (disk.Sparse, func(), error) { return g, func() {}, nil },
	}
}

// versionNight is a backup of a VM with one version.
func (r repo) versionNight(t *testing.T, v wholedisk.Version) (*backup.Report, *wholedisk.Report, error) {
	t.Helper()
	var rep *wholedisk.Report
	all, err := backup.Run(t.Context(), r.Repository, nil, backup.Options{
		VM: "db", Time: time.Now(),
		Objects: func(ctx context.Context, parent *repository.Snapshot) (list []backup.Object, err error) {
			list, rep, err = wholedisk.SaveVersion(ctx, r.Repository, parent, v, wholedisk.Options{Time: time.Now()})
			return list, err
		},
	})
	return all, rep, err
}

// TestVersion: a version is read once, and comes back as it was with the real restic.
// One that is not what was imported is refused.
func TestVersion(t *testing.T) {
	r, g := newRepo(t), newGuest(5<<20+512)
	noise(g.data[:3<<20], 9)
	v1 := version(g, "v1")
	first, rep, err := r.versionNight(t, v1)
	if err != nil || rep == nil || rep.Read != g.Size() {
		t.Fatalf("%+v, %v", rep, err)
	}
	reads := g.reads
	second, rep, err := r.versionNight(t, v1)
	if err != nil || rep != nil || g.reads != reads || second.Tree != first.Tree {
		t.Errorf("the second night: %+v, %v, %d bytes read", rep, err, g.reads-reads)
	}
	to := t.TempDir()
	r.Restic(t, "restore", "latest", "--target", to)
	if got, err := os.ReadFile(filepath.Join(to, "disks/root.raw")); err != nil || !bytes.Equal(got, g.data) {
		t.Errorf("restic restores %d bytes, %v", len(got), err)
	}
	s, err := r.LoadSnapshot(t.Context(), second.ID)
	if err != nil || !slices.Contains(s.Tags, "version:root=v1") || wholedisk.Has(s, "root") || !wholedisk.HasVersion(s, "root") || wholedisk.HasVersion(s, "roo") {
		t.Errorf("tags %q, %v", s.Tags, err)
	}

	noise(g.data[1<<20:2<<20], 10)
	if _, _, err := r.versionNight(t, wholedisk.Version{Disk: "root", Name: "v2", Size: v1.Size, SHA256: v1.SHA256[1:] + "0", Open: v1.Open}); !errors.Is(err, wholedisk.ErrVersion) {
		t.Errorf("a version with another digest: %v", err)
	}
	g.broken[3] = true
	if _, _, err := r.versionNight(t, version(g, "v2")); !errors.Is(err, wholedisk.ErrVersion) {
		t.Errorf("a version that cannot be read: %v", err)
	}
	clear(g.broken)
	if _, rep, err = r.versionNight(t, version(g, "v2")); err != nil || rep == nil || rep.Stored > 2<<20 {
		t.Errorf("the next version: %+v, %v", rep, err)
	}
}
