package partition_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/partition"
	"github.com/drydock-vm/drydock/disk/qcow2"
)

// randomGPT is a disk with up to eight partitions, in no order, with gaps.
func randomGPT(rng *rand.Rand, sector int) *image {
	sectors := 64 + rng.IntN(2000)
	im := newImage(sector, sectors)
	array := (gptEntries*gptEntrySize + sector - 1) / sector
	entries := make([]gptEntry, rng.IntN(gptEntries)+1)
	at := uint64(2 + array)
	for _, i := range rng.Perm(len(entries)) {
		first := at + uint64(rng.IntN(5))
		last := first + uint64(rng.IntN(sectors/gptEntries))
		if last > uint64(sectors-2-array) {
			last = uint64(sectors - 2 - array)
		}
		if first > last { // the disk is full: the rest goes
			entries = []gptEntry{{first: uint64(2 + array), last: uint64(2 + array), name: "alone"}}
			break
		}
		entries[i] = gptEntry{first, last, fmt.Sprintf("part-%d", i)}
		at = last + 1
	}
	im.gpt(entries...)
	return im
}

// randomMBR is a disk with a few primary partitions, and a container of logical
// ones whose records are chained in no order.
func randomMBR(rng *rand.Rand, sector int) *image {
	const slot = 20 // sectors for a record and its partition
	logical := rng.IntN(12)
	container := uint32(100)
	im := newImage(sector, 100+slot*(logical+1)+50)
	binary.LittleEndian.PutUint32(im.b[440:], rng.Uint32()|1)
	im.record(0,
		[3]uint32{0x83, 1 + rng.Uint32N(30), 1 + rng.Uint32N(20)},
		[3]uint32{},
		[3]uint32{0x05, container, uint32(slot * (logical + 1))},
		[3]uint32{0x82, 60, 1 + rng.Uint32N(40)})
	record := uint32(0) // from the container on
	for _, next := range append(rng.Perm(logical), -1) {
		link := [3]uint32{}
		follow := uint32(0)
		if next >= 0 {
			follow = uint32(slot * (next + 1))
			link = [3]uint32{0x05, follow, slot}
		}
		start := 1 + rng.Uint32N(10)
		im.record(int(container+record), [3]uint32{0x83, start, 1 + rng.Uint32N(slot-start-1)}, link)
		record = follow
	}
	return im
}

// TestRandomTables: what libblkid reads from a good table is what is read here.
func TestRandomTables(t *testing.T) {
	for seed := range uint64(12) {
		for _, sector := range []int{512, 4096} {
			for _, make := range []func(*rand.Rand, int) *image{randomGPT, randomMBR} {
				im := make(rand.New(rand.NewPCG(seed, 17)), sector)
				checkTable(t, im)
				path := filepath.Join(t.TempDir(), "disk.raw")
				if err := os.WriteFile(path, im.b, 0o600); err != nil {
					t.Fatal(err)
				}
				comparePartx(t, path, int64(sector))
			}
		}
	}
}

// TestEveryField sets every field of a GPT and of its first entry to the
// extremes and the neighbours of what is there, with checksums that are right
// again, in both tables at once: a good table or an error of ours.
func TestEveryField(t *testing.T) {
	fields := [][2]int{{8, 4}, {12, 4}, {24, 8}, {32, 8}, {40, 8}, {48, 8}, {72, 8}, {80, 4}, {84, 4}}
	for _, f := range fields {
		everyValue(t, f[1], func(im *image) [][]byte { return [][]byte{im.at(1)[f[0]:], im.at(63)[f[0]:]} })
	}
	for _, f := range [][2]int{{0, 8}, {32, 8}, {40, 8}, {48, 8}, {56, 4}} {
		everyValue(t, f[1], func(im *image) [][]byte { return [][]byte{im.at(2)[f[0]:], im.at(61)[f[0]:]} })
	}
	for entry := range 4 {
		for _, f := range [][2]int{{0, 1}, {4, 1}, {8, 4}, {12, 4}} {
			everyValue(t, f[1], func(im *image) [][]byte { return [][]byte{im.b[446+16*entry+f[0]:]} })
		}
	}
}

// everyValue sets the little-endian fields that places finds to each value.
func everyValue(t *testing.T, width int, places func(*image) [][]byte) {
	t.Helper()
	limit := uint64(1)<<(8*width-1)*2 - 1
	for _, v := range []func(uint64) uint64{
		func(uint64) uint64 { return 0 },
		func(uint64) uint64 { return 1 },
		func(uint64) uint64 { return limit },
		func(uint64) uint64 { return limit - 1 },
		func(uint64) uint64 { return limit/2 + 1 },
		func(uint64) uint64 { return limit / 2 },
		func(old uint64) uint64 { return old + 1 },
		func(old uint64) uint64 { return old - 1 },
		func(old uint64) uint64 { return old * 2 },
		func(old uint64) uint64 { return old ^ 1<<(4*width) },
	} {
		im := twoPartitions()
		for _, b := range places(im) {
			var buf [8]byte
			copy(buf[:width], b)
			binary.LittleEndian.PutUint64(buf[:], v(binary.LittleEndian.Uint64(buf[:])))
			copy(b, buf[:width])
		}
		im.seal(1)
		im.seal(63)
		checkTable(t, im)
	}
}

// TestPartitionOfSnapshot goes down the whole stack: a filesystem's partition of
// an internal snapshot of a qcow2, while the active state is another.
func TestPartitionOfSnapshot(t *testing.T) {
	source := emptyDisk(t, 24)
	disktest.Run(t, "sgdisk", "-n", "1:2048:+2M", "-n", "2:0:+16M", source)
	disktest.Run(t, "mke2fs", "-q", "-t", "ext4", "-F", "-L", "inside", "-E", fmt.Sprintf("offset=%d", 6144*512), source, "16M")
	want, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	disktest.Run(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", source, path)
	disktest.Run(t, "qemu-img", "snapshot", "-c", "night", path)
	disktest.Run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 255 0 24M", path)

	f, size := disktest.OpenFile(t, path)
	im, err := qcow2.Open(f, size, qcow2.Options{Snapshot: "night"})
	if err != nil {
		t.Fatal(err)
	}
	table, err := partition.Read(im, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := table.Find(2)
	if err != nil {
		t.Fatal(err)
	}
	s, err := partition.Section(im, p.Offset, p.Length)
	if err != nil {
		t.Fatal(err)
	}
	disktest.Check(t, s, want[p.Offset:p.Offset+p.Length])
	if label := string(want[p.Offset+1024+120:][:6]); label != "inside" {
		t.Errorf("the label is %q", label)
	}
	var holes int64
	err = s.Extents(0, s.Size(), func(e disk.Extent) error {
		if e.Kind != disk.ExtentData {
			holes += e.Length
		}
		return nil
	})
	if err != nil || holes < 8<<20 {
		t.Errorf("%d bytes of holes in an empty filesystem, %v", holes, err)
	}
	// The active state is not partitioned any more.
	active, err := qcow2.Open(f, size, qcow2.Options{})
	if err != nil {
		t.Fatal(err)
	}
	checkNone(t, "the active state", active)
}
