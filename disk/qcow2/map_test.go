package qcow2_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/qcow2"
	"github.com/drydock-vm/drydock/disk/raw"
)

var (
	_ disk.Sparse  = (*qcow2.Image)(nil)
	_ disk.Locator = (*qcow2.Image)(nil)
)

// qemuRanges is what `qemu-img map` says. It gives compressed data no offset,
// which is how it can be told.
func qemuRanges(t testing.TB, path string) (list []qcow2.Range) {
	t.Helper()
	var ranges []struct {
		Start, Length       int64
		Depth               int
		Present, Zero, Data bool
		Offset              *int64
	}
	out := disktest.Run(t, "qemu-img", "map", "-f", "qcow2", "--output=json", path)
	if err := json.Unmarshal(out, &ranges); err != nil {
		t.Fatal(err)
	}
	for _, r := range ranges {
		kind := disk.ExtentHole
		switch {
		case r.Data:
			kind = disk.ExtentData
		case r.Present:
			kind = disk.ExtentZero
		}
		list = appendRange(list, qcow2.Range{
			Offset: r.Start, Length: r.Length, Kind: kind, Depth: r.Depth, Compressed: r.Data && r.Offset == nil,
		})
	}
	return list
}

// appendRange appends r, merged with the last one if it goes on with it.
func appendRange(list []qcow2.Range, r qcow2.Range) []qcow2.Range {
	if n := len(list); n > 0 {
		last := list[n-1]
		last.Offset, last.Length = r.Offset, r.Length
		if last == r {
			list[n-1].Length += r.Length
			return list
		}
	}
	return append(list, r)
}

// checkRanges compares Map with `qemu-img map`, and pieces of it with the whole.
func checkRanges(t testing.TB, im *qcow2.Image, path string) {
	t.Helper()
	want := qemuRanges(t, path)
	var got []qcow2.Range
	collect := func(r qcow2.Range) error { got = append(got, r); return nil }
	if err := im.Map(0, im.Size(), collect); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("map (offset, length, kind, depth, compressed)\n got %v\nwant %v", got, want)
	}
	for _, piece := range []int64{im.Size()/7 + 1, 99_999} {
		got = nil
		for off := int64(0); off < im.Size(); off += piece {
			err := im.Map(off, min(piece, im.Size()-off), func(r qcow2.Range) error { got = appendRange(got, r); return nil })
			if err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("map in pieces of %d\n got %v\nwant %v", piece, got, want)
		}
	}
}

// checkLocations checks that what Locate finds in the files, in the order of
// their numbers, is what the disk holds, and that it finds all data that is not
// compressed.
func checkLocations(t testing.TB, im *qcow2.Image, want []byte, files iter.Seq2[int, string]) {
	t.Helper()
	var contents [][]byte
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		contents = append(contents, b)
	}
	located := make([]bool, len(want)/512)
	next := int64(0)
	err := im.Locate(0, im.Size(), func(l disk.Location) error {
		if l.Offset != next || l.Length <= 0 {
			return fmt.Errorf("location %+v, expected one at %d", l, next)
		}
		next += l.Length
		if l.Device < 0 {
			return nil
		}
		if !bytes.Equal(contents[l.Device][l.At:l.At+l.Length], want[l.Offset:next]) {
			return fmt.Errorf("location %+v does not hold what the disk holds", l)
		}
		for i := l.Offset / 512; i < (next+511)/512; i++ {
			located[i] = true
		}
		return nil
	})
	if err != nil || next != im.Size() {
		t.Fatalf("locations up to %d of %d: %v", next, im.Size(), err)
	}
	err = im.Map(0, im.Size(), func(r qcow2.Range) error {
		mustLie := r.Kind == disk.ExtentData && !r.Compressed
		for i := r.Offset / 512; i < (r.Offset+r.Length)/512; i++ {
			if located[i] != mustLie && (mustLie || r.Compressed) {
				return fmt.Errorf("sector %d of %+v: located %v", i, r, located[i])
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestMapOfPackedChain: layers of which some clusters are compressed, each of
// another size, over a raw file.
func TestMapOfPackedChain(t *testing.T) {
	for name, v := range map[string]struct{ options, middle, top string }{
		"growing":     {"cluster_size=64k", "5M", "7M"},
		"shrinking":   {"compression_type=zstd,cluster_size=4k", "3M", "2000k"},
		"up and down": {"compat=0.10", "9M", "3M"},
		"subclusters": {"extended_l2=on", "2000k", "9M"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			base := source(t, 4<<20+512)
			packed, middle, top := filepath.Join(dir, "packed"), filepath.Join(dir, "middle"), filepath.Join(dir, "top")
			disktest.Run(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", v.options, base, packed)
			create := []string{"create", "-q", "-f", "qcow2", "-o", v.options}
			disktest.Run(t, "qemu-img", append(create, "-b", packed, "-F", "qcow2", middle, v.middle)...)
			disktest.Run(t, "qemu-img", append(create, "-b", middle, "-F", "qcow2", top, v.top)...)
			qemuIO(t, middle, "write -c -P 1 128k 64k", "write -P 2 1M 10k", "discard 1200k 128k")
			qemuIO(t, top, "write -c -P 3 192k 64k", "write -P 4 1500k 200k")

			im := open(t, top, qcow2.Options{Backing: open(t, middle, qcow2.Options{Backing: open(t, packed, qcow2.Options{})})})
			want := content(t, top)
			disktest.Check(t, im, want)
			checkRanges(t, im, top)
			checkLocations(t, im, want, slices.All([]string{top, middle, packed}))
		})
	}
}

// TestMapOverRaw: of a raw backing file it is known where its holes are, and
// where in it everything lies.
func TestMapOverRaw(t *testing.T) {
	base := source(t, 2<<20+700) // its end is within a sector
	path := filepath.Join(t.TempDir(), "top")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", path, "3M")
	qemuIO(t, path, "write -P 1 300k 5k")
	f, size := disktest.OpenFile(t, base)
	below, err := raw.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	im := open(t, path, qcow2.Options{Backing: below})
	want := content(t, path)
	found := map[qcow2.Range]bool{}
	checkRangesOf(t, im, func(r qcow2.Range) { r.Offset, r.Length = 0, 0; found[r] = true })
	for _, r := range []qcow2.Range{{}, {Depth: 1}, {Kind: disk.ExtentHole, Depth: 1}, {Kind: disk.ExtentHole}} {
		if !found[r] {
			t.Errorf("no range like %+v", r)
		}
	}
	var end disk.Location
	checkLocations(t, im, want, slices.All([]string{path, base}))
	if err := im.Locate(0, im.Size(), func(l disk.Location) error {
		if l.Device == 1 {
			end = l
		}
		return nil
	}); err != nil || end.At+end.Length != size {
		t.Errorf("the last of the backing file is at %+v, its end at %d: %v", end, size, err)
	}
	// A backing file that is no Locator is nowhere.
	im = open(t, path, qcow2.Options{Backing: disktest.Mem(make([]byte, 1<<20))})
	if err := im.Locate(0, im.Size(), func(l disk.Location) error {
		if l.Device > 0 {
			return fmt.Errorf("%+v", l)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// checkRangesOf calls see for each range of im.
func checkRangesOf(t testing.TB, im *qcow2.Image, see func(qcow2.Range)) {
	t.Helper()
	if err := im.Map(0, im.Size(), func(r qcow2.Range) error { see(r); return nil }); err != nil {
		t.Fatal(err)
	}
}

// TestMapStops: an error of yield ends the walk, wherever in a chain it is.
func TestMapStops(t *testing.T) {
	dir := t.TempDir()
	base, top := filepath.Join(dir, "base"), filepath.Join(dir, "top")
	create(t, base, "cluster_size=64k", "1M")
	qemuIO(t, base, "write -P 1 0 64k", "write -z 64k 64k", "write -P 2 192k 64k")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
	qemuIO(t, top, "write -P 3 128k 64k")
	im := open(t, top, qcow2.Options{Backing: open(t, base, qcow2.Options{})})
	stop := errors.New("stop")
	for want := range 5 {
		ranges, locations := 0, 0
		err := im.Map(0, im.Size(), func(qcow2.Range) error {
			if ranges++; ranges > want {
				return stop
			}
			return nil
		})
		if ranges != want+1 || !errors.Is(err, stop) {
			t.Errorf("Map: %d calls, %v; want to stop at call %d", ranges, err, want+1)
		}
		err = im.Locate(0, im.Size(), func(disk.Location) error {
			if locations++; locations > want {
				return stop
			}
			return nil
		})
		if locations != want+1 || !errors.Is(err, stop) {
			t.Errorf("Locate: %d calls, %v; want to stop at call %d", locations, err, want+1)
		}
	}
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, im.Size() + 1}, {im.Size() + 1, 0}, {1, 1<<63 - 1}} {
		if im.Map(r[0], r[1], func(qcow2.Range) error { return nil }) == nil || im.Locate(r[0], r[1], func(disk.Location) error { return nil }) == nil {
			t.Errorf("no error for %v", r)
		}
	}
}
