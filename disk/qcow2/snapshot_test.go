package qcow2_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/qcow2"
)

// wantError checks that err is a disk.Error of this package that wraps want.
func wantError(t testing.TB, err, want error) {
	t.Helper()
	var e *disk.Error
	if !errors.Is(err, want) || !errors.As(err, &e) || e.Layer != "qcow2" || e.Structure == "" {
		t.Errorf("the error is %#v (%v), want one that is %q", err, err, want)
	}
}

// TestSnapshots: each snapshot keeps its content while the active state is
// written, discarded and resized.
func TestSnapshots(t *testing.T) {
	for name, options := range map[string]string{
		"64k":         "cluster_size=64k",
		"512":         "cluster_size=512",
		"2M":          "cluster_size=2M",
		"v2":          "compat=0.10",
		"zstd":        "compression_type=zstd",
		"subclusters": "extended_l2=on",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			disktest.Run(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, source(t, 4<<20), path)
			var want [][]byte
			before := time.Now().Add(-2 * time.Second)
			for i := range 3 {
				disktest.Run(t, "qemu-img", "snapshot", "-c", fmt.Sprintf("round %d", i), path)
				want = append(want, content(t, path))
				qemuIO(t, path, fmt.Sprintf("write -P %d %dk 300k", i+1, 200*i), fmt.Sprintf("discard %dk 128k", 1024*(i+1)), "write -P 250 3900k 10k")
			}
			disktest.Run(t, "qemu-img", "snapshot", "-d", "round 1", path)
			qemuIO(t, path, "write -P 77 0 4M")

			active := open(t, path, qcow2.Options{})
			disktest.Check(t, active, content(t, path))
			list := active.Snapshots()
			if len(list) != 2 || active.Info().Snapshots != 2 {
				t.Fatalf("snapshots: %+v", list)
			}
			for i, s := range list {
				n := i * 2 // round 1 is gone
				taken := time.Unix(s.Time.Sec, int64(s.Time.Nsec))
				if s.ID != fmt.Sprint(n+1) || s.Name != fmt.Sprintf("round %d", n) || s.Size != 4<<20 || s.VMStateSize != 0 ||
					taken.Before(before) || taken.After(time.Now()) {
					t.Errorf("snapshot %d: %+v", i, s)
				}
				disktest.Check(t, open(t, path, qcow2.Options{Snapshot: s.Name}), want[n])
				disktest.Check(t, open(t, path, qcow2.Options{Snapshot: s.ID}), want[n])
				if !bytes.Equal(content(t, path, "-l", "snapshot.name="+s.Name), want[n]) {
					t.Errorf("QEMU reads something else from snapshot %q", s.Name)
				}
			}
			f, size := disktest.OpenFile(t, path)
			_, err := qcow2.Open(f, size, qcow2.Options{Snapshot: "round 1"})
			wantError(t, err, disk.ErrNotExist)
		})
	}
}

// TestSnapshotOfOtherSize: a snapshot has the size that the disk had.
func TestSnapshotOfOtherSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "3M")
	qemuIO(t, path, "write -P 1 0 3M")
	disktest.Run(t, "qemu-img", "snapshot", "-c", "small", path)
	want := content(t, path)
	disktest.Run(t, "qemu-img", "resize", "-q", "-f", "qcow2", path, "40M")
	qemuIO(t, path, "write -P 2 0 40M")
	im := open(t, path, qcow2.Options{Snapshot: "small"})
	disktest.Check(t, im, want)
	if im.Info().Size != 40<<20 {
		t.Errorf("Info says %d bytes", im.Info().Size)
	}
}

// TestSnapshotUnderWrites reads a snapshot, opened once, while QEMU writes to the
// active state of the same file.
func TestSnapshotUnderWrites(t *testing.T) {
	for name, args := range map[string][]string{"uncompressed": nil, "zlib": {"-c"}, "zstd": {"-c", "-o", "compression_type=zstd"}} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			args = append([]string{"convert", "-f", "raw", "-O", "qcow2"}, args...)
			disktest.Run(t, "qemu-img", append(args, source(t, 16<<20), path)...)
			disktest.Run(t, "qemu-img", "snapshot", "-c", "s", path)
			readWhileWritten(t, path)
		})
	}
}

func readWhileWritten(t *testing.T, path string) {
	t.Helper()
	want := content(t, path)
	im := open(t, path, qcow2.Options{Snapshot: "s", L2CacheBytes: -1})
	rng := rand.New(rand.NewPCG(5, 6))
	commands := []string{"discard 2M 3M"}
	for range 300 {
		commands = append(commands, fmt.Sprintf("write -P %d %dk %dk", rng.IntN(255)+1, rng.IntN(16000), rng.IntN(300)+1))
	}
	written := make(chan error, 1)
	go func() { written <- runQuietly("qemu-io", qemuIOArgs(path, commands)...) }()
	for done := false; !done; {
		select {
		case err := <-written:
			if err != nil {
				t.Error(err)
			}
			done = true
		default:
		}
		disktest.Check(t, im, want)
		stream(t, im, want, 0, 100_000)
	}
	disktest.Check(t, open(t, path, qcow2.Options{Snapshot: "s"}), want)
}

// TestSnapshotNames: an id goes before a name; a name that two have is refused.
func TestSnapshotNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
	var want [][]byte
	for i, name := range []string{"twin", "1", "twin", "esc \x1b[31m\n"} {
		qemuIO(t, path, fmt.Sprintf("write -P %d 0 64k", i+1))
		disktest.Run(t, "qemu-img", "snapshot", "-c", name, path)
		want = append(want, content(t, path))
	}
	disktest.Check(t, open(t, path, qcow2.Options{Snapshot: "1"}), want[0])
	disktest.Check(t, open(t, path, qcow2.Options{Snapshot: "2"}), want[1])
	disktest.Check(t, open(t, path, qcow2.Options{Snapshot: "esc \x1b[31m\n"}), want[3])
	f, size := disktest.OpenFile(t, path)
	_, err := qcow2.Open(f, size, qcow2.Options{Snapshot: "twin"})
	wantError(t, err, disk.ErrUnsupported)
	_, err = qcow2.Open(f, size, qcow2.Options{Snapshot: "none\x1b"})
	wantError(t, err, disk.ErrNotExist)
	if strings.Contains(err.Error(), "\x1b") {
		t.Errorf("the error has the name as it is: %q", err)
	}
}

// TestSnapshotOfOverlay: what a snapshot does not hold is the backing file's.
func TestSnapshotOfOverlay(t *testing.T) {
	base := source(t, 2<<20)
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", path)
	qemuIO(t, path, "write -P 1 300k 5k")
	disktest.Run(t, "qemu-img", "snapshot", "-c", "s", path)
	want := content(t, path)
	qemuIO(t, path, "write -P 2 0 2M")
	below, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	disktest.Check(t, open(t, path, qcow2.Options{Snapshot: "s", Backing: disktest.Mem(below)}), want)
}
