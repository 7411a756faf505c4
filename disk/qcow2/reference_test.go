package qcow2_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/qcow2"
	"github.com/drydock-vm/drydock/disk/raw"
)

// The tests of this file compare with QEMU, byte for byte and extent for extent.

// qemuIO runs commands of qemu-io on an image.
func qemuIO(t testing.TB, path string, commands ...string) {
	t.Helper()
	out := disktest.Run(t, "qemu-io", qemuIOArgs(path, commands)...)
	if strings.Contains(string(out), "failed") { // and exits with 0
		t.Fatalf("qemu-io: %s", out)
	}
}

func qemuIOArgs(path string, commands []string) []string {
	args := []string{"-f", "qcow2", "-d", "unmap", "-t", "unsafe"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	return append(args, path)
}

// source makes a raw file of a few regions of each kind: noise, text, zeros,
// holes. It is size bytes long, and nothing of it is aligned.
func source(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "source.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	rng := rand.NewChaCha8([32]byte{7})
	noise := make([]byte, size/8)
	rng.Read(noise)
	text := []byte(strings.Repeat("all hands on deck; ", int(size/8/19)))
	for _, part := range []struct {
		off  int64
		data []byte
	}{
		{0, noise[:4096]},
		{size/8 + 1000, text},
		{size/4 + 77, noise},
		{size / 2, make([]byte, size/16)},
		{size*5/8 + 5000, text},
		{size*7/8 - 3000, noise[:len(noise)/2]},
		{size - 700, noise[:700]},
	} {
		if _, err := f.WriteAt(part.data, part.off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func open(t testing.TB, path string, opts qcow2.Options) *qcow2.Image {
	t.Helper()
	f, size := disktest.OpenFile(t, path)
	im, err := qcow2.Open(f, size, opts)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// content is what qemu-img makes of an image, by extra arguments of convert.
func content(t testing.TB, path string, args ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "content.raw")
	args = append([]string{"convert", "-f", "qcow2", "-O", "raw"}, args...)
	disktest.Run(t, "qemu-img", append(args, path, out)...)
	want, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// checkMap compares the extents of im with those of `qemu-img map`. exact asks
// for zeros and holes to be told apart in the same way, which holds for what
// qcow2 itself says, and not for what QEMU finds out about a raw backing file.
func checkMap(t testing.TB, im *qcow2.Image, path string, exact bool) {
	t.Helper()
	var ranges []struct {
		Start, Length       int64
		Present, Zero, Data bool
	}
	out := disktest.Run(t, "qemu-img", "map", "-f", "qcow2", "--output=json", path)
	if err := json.Unmarshal(out, &ranges); err != nil {
		t.Fatal(err)
	}
	var want []disk.Extent
	add := func(list []disk.Extent, e disk.Extent) []disk.Extent {
		if !exact && e.Kind == disk.ExtentZero {
			e.Kind = disk.ExtentHole
		}
		if n := len(list); n > 0 && list[n-1].Kind == e.Kind {
			list[n-1].Length += e.Length
			return list
		}
		return append(list, e)
	}
	for _, r := range ranges {
		e := disk.Extent{Offset: r.Start, Length: r.Length, Kind: disk.ExtentHole}
		switch {
		case r.Data:
			e.Kind = disk.ExtentData
		case r.Present:
			e.Kind = disk.ExtentZero
		}
		want = add(want, e)
	}
	var got []disk.Extent
	err := im.Extents(0, im.Size(), func(e disk.Extent) error {
		got = add(got, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("extents (offset, length, kind)\n got %v\nwant %v\n%s", got, want, out)
	}
}

func TestAgainstQEMU(t *testing.T) {
	for name, v := range map[string]struct {
		options  string
		compress bool
		size     int64
		write    []string // commands of qemu-io
	}{
		"v3":           {"", false, 12<<20 + 1536, nil},
		"v2":           {"compat=0.10", false, 12<<20 + 1536, nil},
		"v2 zlib":      {"compat=0.10", true, 12<<20 + 1536, nil},
		"zlib":         {"", true, 12<<20 + 1536, nil},
		"zstd":         {"compression_type=zstd", true, 12<<20 + 1536, nil},
		"512":          {"cluster_size=512", false, 3<<20 + 512, nil},
		"512 zlib":     {"cluster_size=512", true, 3<<20 + 512, nil},
		"512 zstd":     {"cluster_size=512,compression_type=zstd", true, 3<<20 + 512, nil},
		"512 v2 zlib":  {"cluster_size=512,compat=0.10", true, 3<<20 + 512, nil},
		"4k zlib":      {"cluster_size=4k", true, 12 << 20, nil},
		"2M":           {"cluster_size=2M", false, 16<<20 + 512, nil},
		"2M zlib":      {"cluster_size=2M", true, 16<<20 + 512, nil},
		"2M zstd":      {"cluster_size=2M,compression_type=zstd", true, 16<<20 + 512, nil},
		"refcount 1":   {"refcount_bits=1", false, 12 << 20, nil},
		"refcount 64":  {"refcount_bits=64,lazy_refcounts=on", false, 12 << 20, nil},
		"preallocated": {"preallocation=metadata", false, 12<<20 + 1536, nil},
		"zeros": {"", false, 12 << 20, []string{
			"write -z 0 64k", "write -z 128k 1M", "write -z -u 2M 1M", "discard 4M 1M", "write -P 9 5000000 12345",
		}},
		"zeros over compressed": {"", true, 12 << 20, []string{
			"write -z 3M 1M", "write -P 7 3100000 70000", "write -z -u 6M 512k", "discard 1M 256k",
		}},
		"subclusters": {"extended_l2=on", false, 12 << 20, []string{
			"write -P 1 100k 3k", "write -P 2 200k 1", "write -z 1M 10k", "write -z 1060k 2k", "write -P 3 1064k 2k",
			"discard 2M 30k", "write -z -u 3M 100k", "write -P 4 3083k 8k",
		}},
		"subclusters, empty": {"extended_l2=on,cluster_size=16k", false, 0, []string{
			"write -P 1 10k 3k", "write -z 11k 1k", "write -P 2 100k 512", "write -P 3 131072 16k", "write -z 150k 40k",
		}},
		"subclusters 2M zstd": {"extended_l2=on,cluster_size=2M,compression_type=zstd", true, 24 << 20, []string{
			"write -P 1 5M 3k", "write -z 9M 300k",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			var args []string
			if v.options != "" {
				args = append(args, "-o", v.options)
			}
			if v.size == 0 {
				disktest.Run(t, "qemu-img", append(append([]string{"create", "-q", "-f", "qcow2"}, args...), path, "4M")...)
			} else {
				if v.compress {
					args = append(args, "-c")
				}
				args = append([]string{"convert", "-f", "raw", "-O", "qcow2"}, args...)
				disktest.Run(t, "qemu-img", append(args, source(t, v.size), path)...)
			}
			if v.write != nil {
				qemuIO(t, path, v.write...)
			}
			want := content(t, path)
			im := open(t, path, qcow2.Options{})
			disktest.Check(t, im, want)
			checkMap(t, im, path, true)

			// Caches change nothing.
			im = open(t, path, qcow2.Options{L2CacheBytes: -1, ClusterCacheBytes: -1})
			disktest.Check(t, im, want)
		})
	}
}

// TestEmptyAndHuge: images whose size is all there is.
func TestEmptyAndHuge(t *testing.T) {
	for _, v := range []struct{ options, size string }{
		{"cluster_size=64k", "0"},
		{"cluster_size=512", "512"},
		{"cluster_size=64k", "16T"},
		{"cluster_size=512", "4G"},
		{"cluster_size=2M", "32P"},
		{"cluster_size=2M,extended_l2=on", "32P"},
	} {
		path := filepath.Join(t.TempDir(), "disk.qcow2")
		disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", v.options, path, v.size)
		im := open(t, path, qcow2.Options{})
		var got []disk.Extent
		err := im.Extents(0, im.Size(), func(e disk.Extent) error { got = append(got, e); return nil })
		if err != nil || im.Size() > 0 && (len(got) != 1 || got[0] != disk.Extent{Length: im.Size(), Kind: disk.ExtentHole}) {
			t.Errorf("%v: extents %v, %v", v, got, err)
		}
		buf := []byte("not zero")
		if n, err := im.ReadAt(buf, max(0, im.Size()-8)); im.Size() > 0 && (n != 8 || err != nil || string(buf) != strings.Repeat("\x00", 8)) {
			t.Errorf("%v: reading the end: %d, %v, %q", v, n, err, buf)
		}
	}
}

// TestInfo: what QEMU was asked for is what Info says.
func TestInfo(t *testing.T) {
	base := qcow2.Info{Version: 3, Size: 1 << 20, ClusterSize: 65536, Compression: "zlib", RefcountBits: 16}
	for options, change := range map[string]func(*qcow2.Info){
		"cluster_size=64k":                       func(*qcow2.Info) {},
		"compat=0.10":                            func(i *qcow2.Info) { i.Version = 2 },
		"cluster_size=512":                       func(i *qcow2.Info) { i.ClusterSize = 512 },
		"cluster_size=2M":                        func(i *qcow2.Info) { i.ClusterSize = 2 << 20 },
		"compression_type=zstd":                  func(i *qcow2.Info) { i.Compression = "zstd" },
		"refcount_bits=1":                        func(i *qcow2.Info) { i.RefcountBits = 1 },
		"refcount_bits=64,lazy_refcounts=on":     func(i *qcow2.Info) { i.RefcountBits, i.LazyRefcounts = 64, true },
		"extended_l2=on":                         func(i *qcow2.Info) { i.ExtendedL2 = true },
		"backing_file=base \x1b,backing_fmt=raw": func(i *qcow2.Info) { i.BackingFile, i.BackingFormat = "base \x1b", "raw" },
	} {
		path := filepath.Join(t.TempDir(), "disk.qcow2")
		disktest.Run(t, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-o", options, path, "1M")
		want := base
		change(&want)
		f, size := disktest.OpenFile(t, path)
		got, snapshots, err := qcow2.Inspect(f, size)
		if err != nil || got != want || len(snapshots) != 0 {
			t.Errorf("%q: %+v, %d snapshots, %v; want %+v", options, got, len(snapshots), err, want)
		}
	}
}

// TestBackingChain: three layers, each of another size, the lowest raw.
func TestBackingChain(t *testing.T) {
	for name, v := range map[string]struct {
		options          string
		middleSize, size string
	}{
		"growing":     {"cluster_size=64k", "6M", "9M"},
		"shrinking":   {"cluster_size=64k", "3M", "2000k"},
		"up and down": {"cluster_size=64k", "9M", "3M"},
		"down and up": {"cluster_size=64k", "2000k", "9M"},
		"512":         {"cluster_size=512", "2000k", "9M"},
		"2M":          {"cluster_size=2M", "2000k", "9M"},
		"v2":          {"compat=0.10", "2000k", "9M"},
		"subclusters": {"extended_l2=on", "2000k", "9M"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := source(t, 4<<20+1536)
			middle := filepath.Join(t.TempDir(), "middle.qcow2")
			top := filepath.Join(t.TempDir(), "top.qcow2")
			create := []string{"create", "-q", "-f", "qcow2", "-o", v.options}
			disktest.Run(t, "qemu-img", append(create, "-b", base, "-F", "raw", middle, v.middleSize)...)
			qemuIO(t, middle, "write -P 1 100k 70000", "write -P 2 1990k 10k")
			disktest.Run(t, "qemu-img", append(create, "-b", middle, "-F", "qcow2", top, v.size)...)
			qemuIO(t, top, "write -P 3 130k 1000", "write -P 4 1900k 10k")
			if !strings.Contains(v.options, "compat") {
				qemuIO(t, top, "write -z 700k 300k")
			}

			baseFile, baseSize := disktest.OpenFile(t, base)
			lowest, err := raw.Open(baseFile, baseSize)
			if err != nil {
				t.Fatal(err)
			}
			im := open(t, top, qcow2.Options{Backing: open(t, middle, qcow2.Options{Backing: lowest})})
			disktest.Check(t, im, content(t, top))
			checkMap(t, im, top, false)
		})
	}
}

// TestCutLastCluster: QEMU reads zeros where the file ends within a cluster.
func TestCutLastCluster(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
	qemuIO(t, path, "write -P 5 0 128k")
	_, size := disktest.OpenFile(t, path)
	for _, cut := range []int64{1, 511, 512, 65535} {
		if err := os.Truncate(path, size-cut); err != nil {
			t.Fatal(err)
		}
		disktest.Check(t, open(t, path, qcow2.Options{}), content(t, path))
	}
	// A cluster that is gone as a whole is not zeros here, though it is in QEMU.
	if err := os.Truncate(path, size-65536); err != nil {
		t.Fatal(err)
	}
	im := open(t, path, qcow2.Options{})
	n, err := im.ReadAt(make([]byte, 128<<10), 0)
	wantError(t, err, disk.ErrCorrupt)
	if n != 64<<10 {
		t.Errorf("read %d bytes in front of the damage, want 64 KiB", n)
	}
}

func create(t testing.TB, path, options, size string) {
	t.Helper()
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, size)
}
