package verify_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/verify"
)

// keep makes a repository for testdata. One is kept of each version that wrote
// another form, and never made again: it stands for those that people have.
var keep = flag.String("keep", "", "write a repository of this version to testdata/kept/NAME")

// keptGuest is what is in the repositories of testdata/kept.
var keptGuest = guest{
	"etc/hostname":       []byte("web\n"),
	"empty":              {},
	"var/lib/app/binary": {0, 1, 2, 0xff, 0xfe},
	"var/lib/app/log":    bytes.Repeat([]byte("the same line over and over\n"), 3000),
	"späße 雪/\xff":       []byte("names are bytes\n"),
}

// Repositories of earlier versions, and of restic, still restore.
func TestKeptRepositories(t *testing.T) {
	kept := filepath.Join("testdata", "kept")
	if *keep != "" {
		p := newPlace(t)
		repo, err := p.open(t, repository.Options{})
		check(t, err)
		_, err = keptGuest.backUp(t.Context(), repo, "web", noon)
		check(t, err)
		check(t, os.CopyFS(filepath.Join(kept, *keep), os.DirFS(p.dir)))
	}
	entries, err := os.ReadDir(kept)
	check(t, err)
	if len(entries) < 3 {
		t.Errorf("only %d repositories are kept", len(entries))
	}
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) {
			p := place{filepath.Join(kept, e.Name()), newPlace(t).keyFile}.copied(t) // to be locked
			repo, err := p.open(t, repository.Options{})
			check(t, err)
			all, err := repo.Snapshots(t.Context())
			check(t, err)
			if len(all) != 1 {
				t.Fatalf("%d snapshots", len(all))
			}
			if lost := keptGuest.lostOf(t, repo, all[0].ID); len(lost) > 0 {
				t.Errorf("lost %q", lost)
			}
			if r := p.verified(t, verify.Options{Mode: verify.Full}); !r.Good() || r.PacksRead == 0 {
				t.Errorf("%+v", r)
			}
			if out, err := p.restic(t, "check", "--read-data"); err != nil || !strings.Contains(out, "no errors were found") {
				t.Errorf("restic check: %v\n%s", err, out)
			}
		})
	}
}
