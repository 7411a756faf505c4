package qcow2_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/qcow2"
)

// chain is a chain of images that QEMU writes to at random, and what a guest must
// read from the top of it, kept by a model that knows nothing of clusters.
type chain struct {
	t       *testing.T
	rng     *rand.Rand
	options string
	v3      bool

	paths  []string // the top one last
	disk   []byte
	frozen map[string][]byte // by the name of the snapshot, in the top image
	// batch are commands for qemu-io that the model has seen already.
	batch []string
}

func newChain(t *testing.T, seed uint64, options string) *chain {
	c := &chain{
		t: t, rng: rand.New(rand.NewPCG(seed, 99)),
		options: options, v3: !strings.Contains(options, "compat=0.10"),
	}
	c.overlay()
	return c
}

// overlay puts a new image on top, of another size.
func (c *chain) overlay() {
	c.flush()
	path := filepath.Join(c.t.TempDir(), fmt.Sprintf("layer%d.qcow2", len(c.paths)))
	size := int64(c.rng.IntN(4000)+500) * 512
	args := []string{"create", "-q", "-f", "qcow2", "-o", c.options}
	if n := len(c.paths); n > 0 {
		args = append(args, "-b", c.paths[n-1], "-F", "qcow2")
	}
	disktest.Run(c.t, "qemu-img", append(args, path, fmt.Sprint(size))...)
	c.paths = append(c.paths, path)
	below := c.disk
	c.disk = make([]byte, size)
	copy(c.disk, below)
	c.frozen = map[string][]byte{}
}

// write writes, zeroes or discards somewhere, of any size and alignment.
func (c *chain) write() {
	const sector = 512
	sectors := len(c.disk) / sector
	off := c.rng.IntN(sectors)
	n := 1 + c.rng.IntN(min(sectors-off, 1<<c.rng.IntN(9)))
	from, length := off*sector, n*sector
	region := c.disk[from : from+length]
	switch op := c.rng.IntN(10); {
	case op < 6 || !c.v3:
		fill := byte(1 + c.rng.IntN(255))
		c.batch = append(c.batch, fmt.Sprintf("write -P %d %d %d", fill, from, length))
		copy(region, bytes.Repeat([]byte{fill}, length))
	case op < 8:
		c.batch = append(c.batch, fmt.Sprintf("write -z %d %d", from, length))
		clear(region)
	default:
		c.batch = append(c.batch, fmt.Sprintf("write -z -u %d %d", from, length))
		clear(region)
	}
}

// snapshot freezes the top image.
func (c *chain) snapshot() {
	c.flush()
	name := fmt.Sprintf("s%d", len(c.frozen))
	disktest.Run(c.t, "qemu-img", "snapshot", "-c", name, c.paths[len(c.paths)-1])
	c.frozen[name] = bytes.Clone(c.disk)
}

// flush lets QEMU do what the model has done.
func (c *chain) flush() {
	if len(c.batch) > 0 {
		qemuIO(c.t, c.paths[len(c.paths)-1], c.batch...)
		c.batch = nil
	}
}

// check opens the chain as it is, and compares it and its snapshots.
func (c *chain) check() {
	c.t.Helper()
	c.flush()
	var below disk.Sparse
	for _, path := range c.paths[:len(c.paths)-1] {
		below = open(c.t, path, qcow2.Options{Backing: below})
	}
	top := c.paths[len(c.paths)-1]
	im := open(c.t, top, qcow2.Options{Backing: below})
	disktest.Check(c.t, im, c.disk)
	checkRanges(c.t, im, top)
	checkLocations(c.t, im, c.disk, slices.Backward(c.paths))
	for name, want := range c.frozen {
		// Caches of one cluster and one table: everything is evicted all the time.
		disktest.Check(c.t, open(c.t, top, qcow2.Options{Backing: below, Snapshot: name, L2CacheBytes: 64 << 10, ClusterCacheBytes: 64 << 10}), want)
	}
}

// TestRandomChains: whatever QEMU did to a chain of images, what is read is what
// the guest wrote.
func TestRandomChains(t *testing.T) {
	for seed, options := range []string{
		"cluster_size=512", "cluster_size=4k", "cluster_size=64k", "cluster_size=2M",
		"compat=0.10,cluster_size=4k", "extended_l2=on,cluster_size=16k", "extended_l2=on,cluster_size=128k",
	} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, uint64(seed), options)
			for layer := range 3 {
				if layer > 0 {
					c.overlay()
				}
				for range 2 {
					for range 12 {
						c.write()
					}
					c.snapshot()
				}
				for range 5 {
					c.write()
				}
				c.check()
			}
		})
	}
}

// far is a write to a disk that is too large to be compared as a whole.
type far struct{ off, length int64 }

// TestFarClusters: writes at the borders of L2 tables, and of the slices that
// they are read in, of a disk of terabytes.
func TestFarClusters(t *testing.T) {
	const gib = 1 << 30
	for _, v := range []struct {
		options, size string
		writes        []far
	}{
		// A table maps 512 MiB, and is one slice.
		{"cluster_size=64k", "16T", []far{{gib/2 - 65536, 131072}, {7 * gib, 1}, {16<<40 - 512, 512}}},
		// A table maps 512 GiB in 32 slices of 16 GiB.
		{"cluster_size=2M", "2T", []far{
			{16*gib - 4096, 8192}, {32 * gib, 1}, {48*gib - 1, 1}, {512*gib - 512, 1024}, {2<<40 - 512, 512},
		}},
		// A table maps 256 GiB in 32 slices of 8 GiB, and a subcluster is 64 KiB.
		{"cluster_size=2M,extended_l2=on", "2T", []far{
			{8*gib - 65536, 131072}, {16 * gib, 65536}, {256*gib - 512, 1024}, {2<<40 - 512, 512},
		}},
		// A table maps 32 KiB.
		{"cluster_size=512", "1G", []far{{32<<10 - 512, 1024}, {gib/2 + 5, 100_000}, {gib - 512, 512}}},
	} {
		t.Run(v.options, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			create(t, path, v.options, v.size)
			var commands []string
			for i, w := range v.writes {
				commands = append(commands, fmt.Sprintf("write -P %d %d %d", i+1, w.off, w.length))
			}
			qemuIO(t, path, commands...)
			im := open(t, path, qcow2.Options{})
			for i, w := range v.writes {
				checkFar(t, im, w, byte(i+1))
			}
			checkMap(t, im, path, true)
		})
	}
}

// checkFar reads a write with 4 KiB around it, which nobody wrote to.
func checkFar(t *testing.T, im *qcow2.Image, w far, fill byte) {
	t.Helper()
	start := max(0, w.off-4096)
	end := min(im.Size(), w.off+w.length+4096)
	want := make([]byte, end-start)
	copy(want[w.off-start:], bytes.Repeat([]byte{fill}, int(w.length)))
	got := bytes.Repeat([]byte{0xee}, len(want))
	if n, err := im.ReadAt(got, start); n != len(want) || err != nil {
		t.Fatalf("%+v: %d of %d, %v", w, n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%+v: wrong content", w)
	}
}

// TestSmallReadsDoNotAllocate: what is cached is read without garbage.
func TestSmallReadsDoNotAllocate(t *testing.T) {
	for _, args := range [][]string{nil, {"-c"}, {"-c", "-o", "compression_type=zstd"}} {
		im, _ := openCounted(t, args...)
		buf := make([]byte, 4096)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := im.ReadAt(buf, 70_000); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%q: %v allocations for a read", args, n)
		}
	}
}

// TestFileGrows: the length of the file is the caller's to say, once. What QEMU
// appends for the active state afterwards is not looked at.
func TestFileGrows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	create(t, path, "cluster_size=4k", "2M")
	qemuIO(t, path, "write -P 1 0 1M")
	disktest.Run(t, "qemu-img", "snapshot", "-c", "s", path)
	want := content(t, path)
	_, size := disktest.OpenFile(t, path)
	qemuIO(t, path, "write -P 2 0 2M")
	f, grown := disktest.OpenFile(t, path)
	if grown <= size {
		t.Fatalf("the file has not grown: %d, %d", size, grown)
	}
	im, err := qcow2.Open(f, size, qcow2.Options{Snapshot: "s"})
	if err != nil {
		t.Fatal(err)
	}
	disktest.Check(t, im, want)
	// The active state has clusters behind that length.
	_, err = readFrom(f, size)
	wantError(t, err, disk.ErrCorrupt)
}
