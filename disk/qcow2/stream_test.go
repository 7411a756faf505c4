package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/qcow2"
)

// TestLargeReadsOfPackedClusters: adjacent clusters cost one read of the file
// for each batch of 256 KiB.
func TestLargeReadsOfPackedClusters(t *testing.T) {
	for _, args := range [][]string{{"-c"}, {"-c", "-o", "compression_type=zstd"}, {"-c", "-o", "cluster_size=4k"}} {
		im, c := openCounted(t, args...)
		buf := make([]byte, 8<<20)
		if _, err := im.ReadAt(buf, 0); err != nil {
			t.Fatal(err)
		}
		if n := c.reads.Load(); n > 8<<20/(256<<10)+8 {
			t.Errorf("%q: %d reads of the file", args, n)
		}
		if !bytes.Equal(buf, bytes.Repeat([]byte("drydock "), 1<<20)) {
			t.Errorf("%q: wrong content", args)
		}
	}
}

// TestRandomReadsReadNothingAhead: what does not look like a stream costs the
// clusters that it touches, and no others.
func TestRandomReadsReadNothingAhead(t *testing.T) {
	im, c := openCounted(t, "-c")
	buf := make([]byte, 4096)
	for i := range int64(20) {
		if _, err := im.ReadAt(buf, (19-i)*400<<10); err != nil {
			t.Fatal(err)
		}
	}
	waitForWorkers(t, 0)
	if n := c.reads.Load(); n != 20+1 {
		t.Errorf("%d reads of the file", n)
	}
}

// TestFilesInOrderAreAStream: small files one after the other, of which each ends within a
// block, are a stream, too.
func TestFilesInOrderAreAStream(t *testing.T) {
	im, c := openCounted(t, "-c")
	buf := make([]byte, 3000)
	for off := int64(0); off < im.Size()-4096; off += 4096 * (1 + off%7) {
		if _, err := im.ReadAt(buf, off); err != nil {
			t.Fatal(err)
		}
	}
	waitForWorkers(t, 0)
	if n := c.reads.Load(); n > 60 { // and not one for each of the 128 clusters
		t.Errorf("%d reads of the file", n)
	}
}

// waitForWorkers waits until at most n goroutines of this package's readers run.
func waitForWorkers(t *testing.T, n int) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	for range 500 {
		got := bytes.Count(stacks[:runtime.Stack(stacks, true)], []byte("qcow2.(*workers).run("))
		if got <= n {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
}

// TestStreams: several readers go through one image at different places and in
// pieces of different sizes; each gets the guest's bytes, and nothing is left
// running when they end.
func TestStreams(t *testing.T) {
	for name, options := range map[string]string{
		"512":         "cluster_size=512",
		"64k zstd":    "compression_type=zstd",
		"2M":          "cluster_size=2M",
		"subclusters": "extended_l2=on",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			disktest.Run(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, source(t, 12<<20+1536), path)
			qemuIO(t, path, "write -P 5 2M 300k", "write -z 9M 100k")
			want := content(t, path)
			im := open(t, path, qcow2.Options{})
			var wg sync.WaitGroup
			for i, piece := range []int{4 << 10, 60_000, 1 << 20, 3<<20 + 5, 512, 200 << 10} {
				wg.Go(func() { stream(t, im, want, i*1_000_000, piece) })
			}
			wg.Wait()
			waitForWorkers(t, 0)
		})
	}
}

// stream reads the rest of an image from offset from, piece by piece.
func stream(t *testing.T, im *qcow2.Image, want []byte, from, piece int) {
	buf := make([]byte, piece)
	for off := from; off < len(want); off += piece {
		n := min(piece, len(want)-off)
		if m, err := im.ReadAt(buf[:n], int64(off)); m != n || err != nil {
			t.Errorf("ReadAt(%d bytes, %d) = %d, %v", n, off, m, err)
			return
		}
		if !bytes.Equal(buf[:n], want[off:off+n]) {
			t.Errorf("ReadAt(%d bytes, %d): wrong content", n, off)
			return
		}
	}
}

// TestStreamIntoDamage: a stream comes as far as the damaged cluster, however
// large its pieces are and whoever decompressed it first.
func TestStreamIntoDamage(t *testing.T) {
	const bad = 37 // cluster
	dir := t.TempDir()
	from, path := filepath.Join(dir, "source"), filepath.Join(dir, "disk.qcow2")
	want := bytes.Repeat([]byte("drydock "), 1<<19)
	if err := os.WriteFile(from, want, 0o600); err != nil {
		t.Fatal(err)
	}
	disktest.Run(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", from, path)
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l2 := binary.BigEndian.Uint64(image[binary.BigEndian.Uint64(image[40:]):]) &^ copied
	host := binary.BigEndian.Uint64(image[l2+8*bad:]) & (1<<54 - 1)
	image[host] |= 6 // a reserved type of block
	for _, piece := range []int{4096, 65536, 100_000, 1 << 20, len(want)} {
		im, err := qcow2.Open(bytes.NewReader(image), int64(len(image)), qcow2.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 0, len(want))
		for err == nil {
			var n int
			n, err = im.ReadAt(got[len(got):min(len(got)+piece, cap(got))], int64(len(got)))
			got = got[:len(got)+n]
		}
		wantError(t, err, disk.ErrCorrupt)
		if len(got) != bad<<16 || !bytes.Equal(got, want[:len(got)]) {
			t.Errorf("pieces of %d: read up to %d, the damage is at %d", piece, len(got), bad<<16)
		}
		// What comes behind it is whole.
		buf := make([]byte, 1<<20)
		if _, err := im.ReadAt(buf, (bad+1)<<16); err != nil || !bytes.Equal(buf, want[:1<<20]) {
			t.Errorf("behind the damage: %v", err)
		}
	}
}

// TestUnreadableCluster: of clusters that are fetched together, those before the
// one that the host cannot read are good.
func TestUnreadableCluster(t *testing.T) {
	dir := t.TempDir()
	from, path := filepath.Join(dir, "source"), filepath.Join(dir, "disk.qcow2")
	want := make([]byte, 2<<20)
	for block := range slices.Chunk(want, 4096) {
		rand.NewChaCha8([32]byte{4}).Read(block[:2000])
	}
	if err := os.WriteFile(from, want, 0o600); err != nil {
		t.Fatal(err)
	}
	disktest.Run(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", from, path)
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l2 := binary.BigEndian.Uint64(image[binary.BigEndian.Uint64(image[40:]):]) &^ copied
	host := int64(binary.BigEndian.Uint64(image[l2+8*10:])&(1<<54-1)) + 700
	im, err := qcow2.Open(failing{image, host, host + 1}, int64(len(image)), qcow2.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, im.Size())
	n, err := im.ReadAt(got, 0)
	if n != 10<<16 || !errors.Is(err, errDisk) || !bytes.Equal(got[:n], want[:n]) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
