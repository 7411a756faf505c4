package nbd_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/internal/nbd"
)

// TestCompareCopy measures how long nbdcopy takes to read a disk of 1 GiB from us
// and from qemu-nbd, in turns.
func TestCompareCopy(t *testing.T) {
	if os.Getenv("DRYDOCK_BENCH") != "1" {
		t.Skip("takes a minute and a quiet machine: set DRYDOCK_BENCH=1")
	}
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
		copyTime := func(uri string) time.Duration {
			begin := time.Now()
			if out, err := exec.Command("nbdcopy", append(args, uri, "null:")...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return time.Since(begin)
		}
		var times [2][]time.Duration
		for range 9 {
			times[0] = append(times[0], copyTime(ours))
			times[1] = append(times[1], copyTime(theirs))
		}
		slices.Sort(times[0])
		slices.Sort(times[1])
		a, b := times[0][4], times[1][4]
		t.Logf("nbdcopy %v of 1 GiB: ours %v, qemu-nbd %v, ratio %.2f", args, a.Round(time.Millisecond), b.Round(time.Millisecond), a.Seconds()/b.Seconds())
	}
}
