package nbd_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/internal/benchdisk"
	"github.com/drydock-vm/drydock/internal/nbd"
)

// TestCompareCopy measures how long nbdcopy takes to read a disk of 1 GiB from us
// and from qemu-nbd, in turns.
func TestCompareCopy(t *testing.T) {
	benchdisk.Wanted(t)
	path := filepath.Join(t.TempDir(), "raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	random := rand.NewChaCha8([32]byte{1})
	part := make([]byte, 1<<20)
	for range 1024 {
		random.Read(part)
		if _, err := f.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	d, err := raw.Open(f, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := qemuServe(t, "raw", path), start(t, nbd.Export{Disk: d}).uri("")
	for _, args := range [][]string{{}, {"--connections=1"}, {"--request-size=2097152"}, {"--no-extents", "--synchronous"}} {
		nbdcopy := func(uri string) func() error {
			return func() error {
				if out, err := exec.Command("nbdcopy", append(args, uri, "null:")...).CombinedOutput(); err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			}
		}
		t.Logf("nbdcopy %v of 1 GiB", args)
		benchdisk.Compare(t, 9, nil,
			benchdisk.Contender{Name: "ours", Run: nbdcopy(ours)},
			benchdisk.Contender{Name: "qemu-nbd", Run: nbdcopy(theirs)})
	}
}
