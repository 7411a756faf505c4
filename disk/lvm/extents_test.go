package lvm_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/lvm"
)

// blocky is a disk that knows of each of its blocks whether it is a hole.
type blocky struct {
	disktest.Mem
	block int64
	hole  []bool
	calls *int
	err   error
}

func (b blocky) Extents(off, length int64, yield func(disk.Extent) error) error {
	*b.calls++
	if b.err != nil {
		return b.err
	}
	for end := off + length; off < end; {
		i := off / b.block
		next := i + 1
		for next*b.block < end && b.hole[next] == b.hole[i] {
			next++
		}
		e := disk.Extent{Offset: off, Length: min(end, next*b.block) - off}
		if b.hole[i] {
			e.Kind = disk.ExtentHole
		}
		if err := yield(e); err != nil {
			return err
		}
		off += e.Length
	}
	return nil
}

// sparseVolumes makes the group of goodText on disks with holes of a size that
// fits neither extents nor chunks.
func sparseVolumes(t *testing.T, share int) (g *lvm.Group, want map[string][]byte, calls *int) {
	t.Helper()
	const block = 1536
	calls = new(int)
	random := rand.New(rand.NewPCG(1, uint64(share)))
	var pvs []disk.Sparse
	for _, letter := range []string{"p", "q"} {
		b := blocky{Mem: physicalVolume(letter, goodText), block: block, calls: calls, hole: make([]bool, 64)}
		for i := 32 << 10 / block; i < len(b.hole); i++ {
			b.hole[i] = random.IntN(100) < share
		}
		for at := 32 << 10; at < len(b.Mem); at++ {
			if !b.hole[at/block] {
				b.Mem[at] = byte(random.Uint32()) | 1
			}
		}
		pvs = append(pvs, b)
	}
	g, err := lvm.OpenGroup(pvs)
	if err != nil {
		t.Fatal(err)
	}
	p, q := pvs[0].(blocky).Mem[extentsAt:], pvs[1].(blocky).Mem[extentsAt:]
	const extent, chunk = 4096, 2048
	want = map[string][]byte{"v": p[1*extent : 5*extent]}
	for i := range 4 {
		want["s"] = append(want["s"], p[6*extent+i*chunk:][:chunk]...)
		want["s"] = append(want["s"], q[3*extent+i*chunk:][:chunk]...)
	}
	return g, want, calls
}

// TestHoles keeps the holes of disks in volumes, striped ones too.
func TestHoles(t *testing.T) {
	for _, share := range []int{0, 30, 70, 100} {
		g, want, _ := sparseVolumes(t, share)
		for name, content := range want {
			d, err := g.Volume(name)
			if err != nil {
				t.Fatal(err)
			}
			disktest.Check(t, d, content)
			holes := int64(0)
			if err := d.Extents(0, d.Size(), func(e disk.Extent) error {
				if e.Kind == disk.ExtentHole {
					holes += e.Length
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			zeros := int64(0)
			for _, b := range content {
				if b == 0 {
					zeros++
				}
			}
			if holes != zeros {
				t.Errorf("%d%%: volume %s has %d bytes of holes, should have %d", share, name, holes, zeros)
			}
		}
	}
}

// TestFewExtents: a striped volume asks its disks once for what they know at
// once, and yields it as one.
func TestFewExtents(t *testing.T) {
	g, _, calls := sparseVolumes(t, 100)
	d, err := g.Volume("s")
	if err != nil {
		t.Fatal(err)
	}
	*calls = 0
	n := 0
	if err := d.Extents(0, d.Size(), func(disk.Extent) error { n++; return nil }); err != nil || n != 1 || *calls != 2 {
		t.Errorf("%d extents after %d calls: %v", n, *calls, err)
	}
}

// TestExtentErrors passes on what a disk has to say.
func TestExtentErrors(t *testing.T) {
	broken := errors.New("broken")
	calls := 0
	var pvs []disk.Sparse
	for _, letter := range []string{"p", "q"} {
		pvs = append(pvs, blocky{Mem: physicalVolume(letter, goodText), calls: &calls, err: broken})
	}
	g, err := lvm.OpenGroup(pvs)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"v", "s"} {
		d, err := g.Volume(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Extents(0, d.Size(), func(disk.Extent) error { return nil }); !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		if err := d.(disk.Locator).Locate(1, d.Size(), func(disk.Location) error { return nil }); err == nil {
			t.Errorf("%s: locations beyond the end", name)
		}
		if err := d.(disk.Locator).Locate(0, d.Size(), func(disk.Location) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// BenchmarkExtents asks for the holes of the largest striped volume that there
// may be on two empty disks.
func BenchmarkExtents(b *testing.B) {
	const extents = 1 << 31
	wide := strings.Replace(volume("v", "v", visible, `type = "striped" stripe_count = 2 stripe_size = 128 stripes = ["pv0", 0, "pv1", 0]`),
		"extent_count = 4", fmt.Sprint("extent_count = ", extents), 1)
	head, _, _ := strings.Cut(strings.ReplaceAll(goodText, "pe_count = 8", fmt.Sprint("pe_count = ", extents)), "logical_volumes {")
	text := head + "logical_volumes {\n" + wide + "}\n}\ncontents = \"Text Format Volume Group\"\nversion = 1\n"
	g, err := lvm.OpenGroup([]disk.Sparse{huge{physicalVolume("p", text)}, huge{physicalVolume("q", text)}})
	if err != nil {
		b.Fatal(err)
	}
	d, err := g.Volume("v")
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%d TiB", d.Size()>>40)
	for b.Loop() {
		if err := d.Extents(0, d.Size(), func(disk.Extent) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// huge is a disk with an empty end.
type huge struct{ disktest.Mem }

func (huge) Size() int64 { return 1 << 50 }

func (huge) Extents(off, length int64, yield func(disk.Extent) error) error {
	return yield(disk.Extent{Offset: off, Length: length, Kind: disk.ExtentHole})
}
