package qcow2_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/qcow2"
	"github.com/drydock-vm/drydock/internal/benchdisk"
)

// The image of TestCompareStreams: in zlib it takes about 0.9 GB.
const (
	compareSize = 8 << 30
	compareData = 7 << 28 // bytes of it that are written
	compareRuns = 3
)

// TestCompareStreams compares the time that it takes to read all data of an
// image with that of QEMU's own tools, from the page cache, as medians of runs
// that alternate.
func TestCompareStreams(t *testing.T) {
	benchdisk.Wanted(t)
	source := writePseudoReal(t)
	for _, v := range []struct {
		name string
		args []string
	}{
		{"zlib", []string{"-c"}},
		{"zstd", []string{"-c", "-o", "compression_type=zstd"}},
		{"uncompressed", nil},
	} {
		path := filepath.Join(t.TempDir(), "disk.qcow2")
		args := append([]string{"convert", "-W", "-m", "4", "-f", "raw", "-O", "qcow2"}, v.args...)
		disktest.Run(t, "qemu-img", append(args, source, path)...)
		uri := "nbd+unix:///?socket=" + serveNBD(t, path)
		_, length := disktest.OpenFile(t, path)
		t.Logf("%s: image of %d MB", v.name, length/1e6)
		medians := benchdisk.Compare(t, compareRuns, nil,
			benchdisk.Contender{Name: "pieces of 1 MiB", Run: func() error { return streamAll(t, path, 1<<20) }},
			benchdisk.Contender{Name: "qemu-nbd and nbdcopy", Run: func() error { return exec.Command("nbdcopy", uri, "null:").Run() }},
			benchdisk.Contender{Name: "pieces of 4 KiB", Run: func() error { return streamAll(t, path, 4<<10) }},
			benchdisk.Contender{Name: "qemu-img convert", Run: func() error {
				return exec.Command("qemu-img", "convert", "-W", "-m", "4", "-n", "-f", "qcow2", "--target-image-opts", path,
					fmt.Sprintf("driver=null-co,size=%d", int64(compareSize))).Run()
			}})
		us, nbd, small, convert := medians[0].Seconds(), medians[1].Seconds(), medians[2].Seconds(), medians[3].Seconds()
		for _, r := range []struct {
			what  string
			ratio float64
			most  float64
		}{
			{"qemu-nbd and nbdcopy", us / nbd, 1},
			{"qemu-img convert", us / convert, 1},
			{"pieces of 4 KiB to those of 1 MiB", small / us, 1.5},
		} {
			t.Logf("%s: %s: %.2f", v.name, r.what, r.ratio)
			if r.ratio > r.most && (v.args != nil || r.most == 1) { // small reads of what is not compressed are the kernel's
				t.Errorf("%s: %s: %.2f, at most %.2f is wanted", v.name, r.what, r.ratio, r.most)
			}
		}
	}
}

// streamAll reads all data of an image, in order.
func streamAll(t *testing.T, path string, piece int64) error {
	im := open(t, path, qcow2.Options{})
	buf := make([]byte, piece)
	return im.Extents(0, im.Size(), func(e disk.Extent) error {
		if e.Kind != disk.ExtentData {
			return nil
		}
		for off := e.Offset; off < e.Offset+e.Length; off += piece {
			n := min(piece, e.Offset+e.Length-off)
			if _, err := im.ReadAt(buf[:n], off); err != nil {
				return err
			}
		}
		return nil
	})
}

// serveNBD lets qemu-nbd serve an image, to be read only, until the test ends, and
// returns its socket.
func serveNBD(t *testing.T, path string, args ...string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "nbd")
	cmd := exec.Command("qemu-nbd", append(args, "-r", "-t", "-e", "8", "-f", "qcow2", "-k", socket, path)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for range 500 {
		// The socket is there before qemu-nbd listens on it.
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return socket
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("qemu-nbd does not listen")
	return ""
}

// writePseudoReal makes a sparse file of text and binaries in pieces of 4 KiB to
// 16 MiB, as a filesystem has them.
func writePseudoReal(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "source.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(compareSize); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	pools := [][]byte{benchdisk.Text(rng), benchdisk.Binary(rng)}
	for off, written := int64(0), int64(0); written < compareData && off < compareSize; {
		pool := pools[rng.IntN(len(pools))]
		n := min(int64(4096)<<rng.IntN(13), compareSize-off)
		from := rng.Int64N(int64(len(pool)) - n + 1)
		if _, err := f.WriteAt(pool[from:from+n], off); err != nil {
			t.Fatal(err)
		}
		written += n
		off += n
		if rng.IntN(2) == 0 { // what is free
			off += rng.Int64N(8*n) &^ 4095
		}
	}
	return path
}
