package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/qcow2"
	"github.com/drydock-vm/drydock/disk/raw"
)

// openWithData opens an image with its external data file.
func openWithData(t *testing.T, path, data string) *qcow2.Image {
	t.Helper()
	f, size := disktest.OpenFile(t, data)
	d, err := raw.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, path, qcow2.Options{DataFile: d})
}

// TestDataFile: images whose data QEMU wrote to another file.
func TestDataFile(t *testing.T) {
	for name, options := range map[string]string{
		"64k":         "cluster_size=64k",
		"512":         "cluster_size=512",
		"2M":          "cluster_size=2M",
		"raw":         "data_file_raw=on",
		"subclusters": "extended_l2=on",
		"all mapped":  "preallocation=metadata",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path, data := filepath.Join(dir, "disk.qcow2"), filepath.Join(dir, "disk.data")
			create(t, path, options+",data_file="+data, "5M")
			qemuIO(t, path, "write -P 1 0 3k", "write -P 2 1M 300k", "write -z 1100k 64k", "discard 1200k 64k", "write -P 3 5100k 20k")
			want := content(t, path)
			if bytes.Count(want, []byte{2}) == 0 {
				t.Fatal("nothing was written")
			}
			im := openWithData(t, path, data)
			disktest.Check(t, im, want)
			checkLocations(t, im, want, slices.All([]string{path, data}))
			info := im.Info()
			if !info.ExternalData || info.DataFile != data || info.RawDataFile != (name == "raw") {
				t.Errorf("%+v", info)
			}
			holes := int64(0)
			checkRangesOf(t, im, func(r qcow2.Range) {
				if r.Kind != disk.ExtentData {
					holes += r.Length
				}
			})
			if holes < 4<<20-64<<10 && name != "2M" {
				t.Errorf("only %d bytes are known to be zeros", holes)
			}
		})
	}
}

// TestDataFileAsOverlay: what is not in the data file is the backing file's.
func TestDataFileAsOverlay(t *testing.T) {
	dir := t.TempDir()
	base, path, data := filepath.Join(dir, "base"), filepath.Join(dir, "disk.qcow2"), filepath.Join(dir, "disk.data")
	create(t, base, "cluster_size=64k", "1M")
	qemuIO(t, base, "write -P 1 0 900k")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+data, "-b", base, "-F", "qcow2", path, "2M")
	qemuIO(t, path, "write -P 2 100k 10k", "write -P 3 1800k 10k")
	f, size := disktest.OpenFile(t, data)
	d, err := raw.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	im := open(t, path, qcow2.Options{DataFile: d, Backing: open(t, base, qcow2.Options{})})
	want := content(t, path)
	disktest.Check(t, im, want)
	checkLocations(t, im, want, slices.All([]string{path, data, base}))
}

// TestDataFileIsGivenOrNot: exactly if the image has one, and never with an
// internal snapshot, whose data it does not keep.
func TestDataFileIsGivenOrNot(t *testing.T) {
	s := newSmall(t, "zlib")
	_, err := readAll(s.image, qcow2.Options{DataFile: disktest.Mem(nil)})
	wantError(t, err, disk.ErrUnsupported)
	s.put64(72, 1<<2)
	_, err = s.read("")
	wantError(t, err, disk.ErrUnsupported)
	_, err = readAll(s.image, qcow2.Options{Snapshot: "s", DataFile: disktest.Mem(s.active)})
	wantError(t, err, disk.ErrUnsupported)
}

// TestDataFileNames: the name of a data file is shown, and never followed.
func TestDataFileNames(t *testing.T) {
	for _, name := range []string{"", "/etc/passwd", "nbd://x/\x1b[31m", "json:{}", "a\x00b", strings.Repeat("x", 300)} {
		s := newSmall(t, "zlib")
		s.put64(72, 1<<2)
		clear(s.image[112:smallCluster]) // no bitmaps
		s.put32(112, 0x44415441, uint32(len(name)))
		copy(s.image[120:], name)
		info, _, err := qcow2.Inspect(bytes.NewReader(s.image), smallFile)
		if err != nil || info.DataFile != name || !info.ExternalData {
			t.Errorf("%q: %+v, %v", name, info, err)
		}
		_, err = s.read("")
		wantError(t, err, disk.ErrUnsupported)
		if strings.ContainsAny(err.Error(), "\x1b\x00") {
			t.Errorf("the error has the name as it is: %q", err)
		}
	}
}

// external makes of the small image one with an external data file.
func external(t *testing.T) (*small, disktest.Mem) {
	s := newSmall(t, "zlib")
	s.put64(72, 1<<2)
	data := bytes.Clone(s.active)
	copy(data[smallCluster:], "what a zero cluster hides")
	s.put64(smallL2, copied, 1|smallCluster, 0, 3*smallCluster|copied)
	return s, data
}

// TestDataFileEntries: one entry of an image with an external data file, and
// what must come of it. QEMU is of the same opinion.
func TestDataFileEntries(t *testing.T) {
	for _, v := range []struct {
		name   string
		change func(*small)
		want   error
		says   string
	}{
		{"as it is", func(*small) {}, nil, ""},
		{"raw", func(s *small) { s.put64(88, 2) }, nil, ""},
		{"elsewhere", func(s *small) { s.put64(smallL2+24, 4*smallCluster|copied) }, disk.ErrCorrupt, "not where the cluster is"},
		{"at 0", func(s *small) { s.put64(smallL2+24, copied) }, disk.ErrCorrupt, "not where the cluster is"},
		{"compressed", func(s *small) { s.put64(smallL2+24, smallCompressed|1<<62) }, disk.ErrCorrupt, "compressed"},
		{"zero, elsewhere", func(s *small) { s.put64(smallL2+8, 77*smallCluster|1) }, disk.ErrCorrupt, "not where the cluster is"},
	} {
		t.Run(v.name, func(t *testing.T) {
			s, data := external(t)
			v.change(s)
			got, err := readAll(s.image, qcow2.Options{DataFile: data})
			checkOutcome(t, got, err, s.active, v.want, v.says)

			dir := t.TempDir()
			path, file := filepath.Join(dir, "disk.qcow2"), filepath.Join(dir, "data")
			for path, b := range map[string][]byte{path: s.image, file: data} {
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out := filepath.Join(dir, "out")
			image := fmt.Sprintf(`json:{"driver":"qcow2","file":{"driver":"file","filename":%q},"data-file":{"driver":"file","filename":%q}}`, path, file)
			err = runQuietly("qemu-img", "convert", "-O", "raw", image, out)
			if (err == nil) != (v.want == nil) {
				t.Errorf("QEMU says %v", err)
			}
			if err == nil {
				if theirs, err := os.ReadFile(out); err != nil || !bytes.Equal(theirs, got) {
					t.Errorf("QEMU reads something else: %v", err)
				}
			}
		})
	}
}

// TestRawDataFile: a data file that is all of the disk leaves nothing to a backing
// file, and must exist.
func TestRawDataFile(t *testing.T) {
	s, data := external(t)
	s.put64(88, 2)
	s.put64(8, 300)
	s.put32(16, 4)
	_, err := readAll(s.image, qcow2.Options{DataFile: data, Backing: disktest.Mem(nil)})
	checkOutcome(t, nil, err, nil, disk.ErrCorrupt, "said to be all of the disk")
	s, _ = external(t)
	s.put64(72, 0)
	s.put64(88, 2)
	_, err = readAll(s.image, qcow2.Options{})
	wantError(t, err, disk.ErrCorrupt)
}

// TestCutDataFile: the end of a cluster may be missing, a cluster as a whole not.
func TestCutDataFile(t *testing.T) {
	s, data := external(t)
	for cut, want := range map[int]error{4*smallCluster - 100: nil, 3 * smallCluster: disk.ErrCorrupt, 0: disk.ErrCorrupt} {
		got, err := readAll(s.image, qcow2.Options{DataFile: data[:cut]})
		content := bytes.Clone(s.active)
		clear(content[cut:])
		checkOutcome(t, got, err, content, want, "ends at")
	}
	im, err := qcow2.Open(bytes.NewReader(s.image), smallFile, qcow2.Options{DataFile: data[:4*smallCluster-100]})
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Clone(s.active)
	clear(content[4*smallCluster-100:])
	disktest.Check(t, im, content)
}

// TestSubclustersInDataFile: subclusters can lie in the first cluster of a data
// file only if bit 63 says that it is allocated.
func TestSubclustersInDataFile(t *testing.T) {
	dir := t.TempDir()
	path, data := filepath.Join(dir, "disk.qcow2"), filepath.Join(dir, "data")
	create(t, path, "extended_l2=on,data_file="+data, "1M")
	qemuIO(t, path, "write -P 1 0 4k")
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	opts := qcow2.Options{DataFile: disktest.Mem(body)}
	if _, err := readAll(image, opts); err != nil {
		t.Fatal(err)
	}
	l2 := binary.BigEndian.Uint64(image[binary.BigEndian.Uint64(image[40:]):]) &^ copied
	binary.BigEndian.PutUint64(image[l2:], 0)
	_, err = readAll(image, opts)
	wantError(t, err, disk.ErrCorrupt)
}
