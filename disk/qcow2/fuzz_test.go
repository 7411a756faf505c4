package qcow2_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/qcow2"
)

var update = flag.Bool("update", false, "write the seeds in testdata/fuzz again")

const seedDir = "testdata/fuzz/FuzzOpenRead"

// FuzzOpenRead opens an image, and each of its snapshots, and reads the start
// and the end: there is content or an error, a second reader agrees, and the
// extents, the map and the locations agree with both. Bitmaps name ranges of the
// disk, or fail.
//
// Fuzz it with -fuzzminimizetime=10x: pools make its coverage differ from run to
// run, so that the minimizer would spend its minute on each input in vain.
func FuzzOpenRead(f *testing.F) {
	f.Fuzz(func(t *testing.T, image []byte) {
		info, snapshots, err := qcow2.Inspect(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			wantOneOfOurs(t, err)
			return
		}
		opts := qcow2.Options{L2CacheBytes: 1 << 20, ClusterCacheBytes: 4 << 20}
		if info.BackingFile != "" {
			opts.Backing = disktest.Mem(bytes.Repeat([]byte("backing "), 1000))
		}
		if info.ExternalData {
			opts.DataFile = disktest.Mem(bytes.Repeat([]byte("data file "), 7000))
		}
		compareReads(t, image, opts)
		checkAllBitmaps(t, image, opts)
		for _, s := range snapshots[:min(len(snapshots), 3)] {
			opts.Snapshot = s.ID
			compareReads(t, image, opts)
		}
	})
}

// compareReads reads twice, in large pieces and in small ones without caches.
func compareReads(t *testing.T, image []byte, opts qcow2.Options) {
	t.Helper()
	a, err := qcow2.Open(bytes.NewReader(image), int64(len(image)), opts)
	if err != nil {
		wantOneOfOurs(t, err)
		return
	}
	opts.L2CacheBytes, opts.ClusterCacheBytes = -1, -1
	b, err := qcow2.Open(bytes.NewReader(image), int64(len(image)), opts)
	if err != nil {
		t.Fatalf("opened once, and not again: %v", err)
	}
	const most = 128 << 10
	for _, off := range []int64{0, max(0, a.Size()-most)} {
		large := make([]byte, min(most, a.Size()-off))
		n, err := a.ReadAt(large, off)
		if err != nil && !errors.Is(err, io.EOF) {
			wantOneOfOurs(t, err)
		}
		for done := 0; done < n; {
			small := make([]byte, min(4093, n-done))
			m, err := b.ReadAt(small, off+int64(done))
			if m == 0 {
				t.Fatalf("offset %d: read once, and not again: %v", off+int64(done), err)
			}
			if !bytes.Equal(small[:m], large[done:done+m]) {
				t.Fatalf("offset %d: two reads differ", off+int64(done))
			}
			done += m
		}
		checkZeros(t, a, large[:n], off)
		checkMapOf(t, a, large[:n], off)
		checkPlaces(t, a, [][]byte{image, asBytes(opts.DataFile)}, large[:n], off)
	}
}

// asBytes is the memory that a data file of the fuzz target is, or nil.
func asBytes(d disk.Sparse) []byte {
	m, _ := d.(disktest.Mem)
	return m
}

// checkMapOf checks that the map of what was read, data, covers it and calls
// nothing zeros that is not.
func checkMapOf(t *testing.T, im *qcow2.Image, data []byte, off int64) {
	t.Helper()
	next := off
	err := im.Map(off, int64(len(data)), func(r qcow2.Range) error {
		if r.Offset != next || r.Length <= 0 || r.Depth < 0 || r.Depth > 1 || r.Compressed && r.Kind != disk.ExtentData {
			return fmt.Errorf("range %+v, expected one at %d", r, next)
		}
		next += r.Length
		if r.Kind != disk.ExtentData && len(bytes.Trim(data[r.Offset-off:next-off], "\x00")) > 0 {
			return fmt.Errorf("range %+v, but there is data", r)
		}
		return nil
	})
	if err != nil || next != off+int64(len(data)) {
		t.Fatalf("map up to %d of %d: %v", next, off+int64(len(data)), err)
	}
}

// checkPlaces checks that the bytes that were read are where Locate says.
func checkPlaces(t *testing.T, im *qcow2.Image, files [][]byte, data []byte, off int64) {
	t.Helper()
	next := off
	err := im.Locate(off, int64(len(data)), func(l disk.Location) error {
		if l.Offset != next || l.Length <= 0 {
			return fmt.Errorf("location %+v, expected one at %d", l, next)
		}
		next += l.Length
		if l.Device >= 0 && !bytes.Equal(files[l.Device][l.At:l.At+l.Length], data[l.Offset-off:next-off]) {
			return fmt.Errorf("location %+v holds something else", l)
		}
		return nil
	})
	if err != nil || next != off+int64(len(data)) {
		t.Fatalf("locations up to %d of %d: %v", next, off+int64(len(data)), err)
	}
}

// errEnough ends a walk over more ranges than are worth looking at.
var errEnough = errors.New("enough")

// checkAllBitmaps walks the bitmaps of an image, as far as they go.
func checkAllBitmaps(t *testing.T, image []byte, opts qcow2.Options) {
	t.Helper()
	im, err := qcow2.Open(bytes.NewReader(image), int64(len(image)), opts)
	if err != nil {
		return
	}
	list, err := im.Bitmaps()
	if err != nil {
		wantOneOfOurs(t, err)
	}
	for _, b := range list[:min(len(list), 3)] {
		next, n := int64(-1), 0
		err := im.DirtyRanges(b.Name, func(off, length int64) error {
			if off <= next || length <= 0 || length > im.Size()-off {
				t.Fatalf("bitmap %q: %d bytes at %d, after %d", b.Name, length, off, next)
			}
			next = off + length
			if n++; n == 10_000 {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			wantOneOfOurs(t, err)
		}
	}
}

// checkZeros checks the extents of what was read: data, which is at off.
func checkZeros(t *testing.T, im *qcow2.Image, data []byte, off int64) {
	t.Helper()
	next := off
	err := im.Extents(off, int64(len(data)), func(e disk.Extent) error {
		if e.Offset != next || e.Length <= 0 {
			return fmt.Errorf("extent %+v, expected one at %d", e, next)
		}
		next += e.Length
		if e.Kind != disk.ExtentData && len(bytes.Trim(data[e.Offset-off:next-off], "\x00")) > 0 {
			return fmt.Errorf("extent %+v, but there is data", e)
		}
		return nil
	})
	if err != nil || next != off+int64(len(data)) {
		t.Fatalf("extents up to %d of %d: %v", next, off+int64(len(data)), err)
	}
}

// wantOneOfOurs: an error on bytes in memory is one that names what is wrong.
func wantOneOfOurs(t *testing.T, err error) {
	t.Helper()
	var e *disk.Error
	if !errors.As(err, &e) || e.Structure == "" {
		t.Fatalf("an error of another kind: %v", err)
	}
}

// seeds are images of each kind, made by QEMU and by hand, and whether they can
// be read.
func seeds(t *testing.T) map[string][]byte {
	list := map[string][]byte{}
	for _, compression := range []string{"zlib", "zstd"} {
		list[compression] = newSmall(t, compression).image
	}
	dir := t.TempDir()
	made := func(name, options string, args ...string) {
		path := filepath.Join(dir, name)
		create(t, path, options, args[0])
		if len(args) > 1 {
			qemuIO(t, path, args[1:]...)
		}
		image, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		list[name] = image
	}
	made("v2", "compat=0.10,cluster_size=512", "20k", "write -P 1 1k 3k")
	made("backing", "cluster_size=512", "20k", "write -z 1k 3k")
	backed := newSmall(t, "zlib")
	backed.put64(8, 300)
	backed.put32(16, 4)
	copy(backed.image[300:], "base")
	list["backing"] = backed.image
	outside, _ := external(t)
	list["datafile"] = outside.image
	made("bitmaps", "cluster_size=512", "40k", "write -P 1 1k 3k")
	path := filepath.Join(dir, "bitmaps")
	for _, g := range []string{"512", "64k"} {
		disktest.Run(t, "qemu-img", "bitmap", "--add", "-g", g, path, "b"+g)
	}
	qemuIO(t, path, "write -P 2 7k 3k")
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list["bitmaps"] = image
	made("empty", "cluster_size=512", "0")
	made("large", "cluster_size=512", "16M")
	made("zeros", "cluster_size=512", "40k", "write -P 1 1k 9k", "write -z 2k 3k", "write -z -u 6k 1k")
	// Subclusters need clusters of 16 KiB; what follows the last one that is
	// written to is cut.
	path = filepath.Join(dir, "sub")
	create(t, path, "extended_l2=on,cluster_size=16k", "64k")
	qemuIO(t, path, "write -P 1 1k 3k", "write -z 5k 1k")
	if image, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	list["subclusters"] = bytes.TrimRight(image, "\x00")
	return list
}

// TestSeeds: every seed of the fuzz target is there, is loaded, and can be read.
func TestSeeds(t *testing.T) {
	if *update {
		for name, image := range seeds(t) {
			text := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", image)
			if err := os.WriteFile(filepath.Join(seedDir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	read := 0
	for _, name := range []string{"zlib", "zstd", "v2", "backing", "empty", "large", "zeros", "subclusters", "datafile", "bitmaps"} {
		image := loadSeed(t, filepath.Join(seedDir, name))
		opts := qcow2.Options{}
		if name == "backing" {
			opts.Backing = disktest.Mem(nil)
		}
		if name == "datafile" {
			opts.DataFile = disktest.Mem(make([]byte, smallSize))
		}
		if name == "bitmaps" {
			if dirty, err := dirtyRanges(image, "b512"); err != nil || !slices.Equal(dirty, []span{{7 << 10, 3 << 10}}) {
				t.Errorf("%s: %v, %v", name, dirty, err)
			}
		}
		got, err := readAll(image, opts)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		read += len(bytes.Trim(got, "\x00"))
	}
	if read == 0 {
		t.Error("no seed has data")
	}
}

func loadSeed(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	body, ok := strings.CutPrefix(string(text), "go test fuzz v1\n[]byte(")
	body, end := strings.CutSuffix(strings.TrimSpace(body), ")")
	image, err := strconv.Unquote(body)
	if !ok || !end || err != nil {
		t.Fatalf("%s is not a seed: %v", path, err)
	}
	return []byte(image)
}
