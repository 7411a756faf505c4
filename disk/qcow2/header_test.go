package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/qcow2"
)

// TestSmall: the image that the tests damage is a good one, QEMU says so too.
func TestSmall(t *testing.T) {
	for _, compression := range []string{"zlib", "zstd"} {
		s := newSmall(t, compression)
		for snapshot, want := range map[string][]byte{"": s.active, "s": s.frozen, "1": s.frozen} {
			im, err := qcow2.Open(bytes.NewReader(s.image), smallFile, qcow2.Options{Snapshot: snapshot})
			if err != nil {
				t.Fatal(err)
			}
			disktest.Check(t, im, want)
		}
		path := filepath.Join(t.TempDir(), "small.qcow2")
		if err := os.WriteFile(path, s.image, 0o600); err != nil {
			t.Fatal(err)
		}
		disktest.Run(t, "qemu-img", "check", "-q", "-f", "qcow2", path)
		if !bytes.Equal(content(t, path), s.active) || !bytes.Equal(content(t, path, "-l", "snapshot.name=s"), s.frozen) {
			t.Errorf("%s: QEMU reads something else", compression)
		}
	}
}

// TestRefusals: one change to a good image, and what must come of it. Of a
// change with no error, the content stays.
func TestRefusals(t *testing.T) {
	put32 := func(off int, v uint32) func(*small) { return func(s *small) { s.put32(off, v) } }
	put64 := func(off int, v uint64) func(*small) { return func(s *small) { s.put64(off, v) } }
	all := func(changes ...func(*small)) func(*small) {
		return func(s *small) {
			for _, c := range changes {
				c(s)
			}
		}
	}
	cut := func(n int) func(*small) { return func(s *small) { s.image = s.image[:n] } }
	for _, v := range []struct {
		name   string
		change func(*small)
		want   error
		says   string // part of the detail
	}{
		{"empty file", cut(0), disk.ErrCorrupt, "the file ends"},
		{"cut in v2 header", cut(71), disk.ErrCorrupt, "the file ends"},
		{"cut in v3 header", cut(103), disk.ErrCorrupt, "the file ends"},
		{"cut in compression type", cut(104), disk.ErrCorrupt, "the file ends"},
		{"magic", put32(0, 0x514649fa), disk.ErrCorrupt, "magic"},
		{"version 1", put32(4, 1), disk.ErrUnsupported, "version 1"},
		{"version 4", put32(4, 4), disk.ErrUnsupported, "version 4"},
		{"cluster_bits 8", put32(20, 8), disk.ErrCorrupt, "cluster_bits is 8"},
		{"cluster_bits 22", put32(20, 22), disk.ErrCorrupt, "cluster_bits is 22"},
		{"cluster_bits 40", put32(20, 40), disk.ErrCorrupt, "cluster_bits is 40"},
		{"cluster_bits 62", put32(20, 62), disk.ErrCorrupt, "cluster_bits is 62"},
		{"cluster_bits max", put32(20, 1<<32-1), disk.ErrCorrupt, "cluster_bits"},
		{"size beyond L1", put64(24, 64<<10+512), disk.ErrCorrupt, "2 entries"},
		{"size beyond all L1", put64(24, 128<<30+1), disk.ErrLimit, "can map"},
		{"size max", put64(24, 1<<64-1), disk.ErrLimit, "can map"},
		{"size negative", put64(24, 1<<63), disk.ErrLimit, "can map"},
		{"AES", put32(32, 1), disk.ErrUnsupported, "AES"},
		{"LUKS", put32(32, 2), disk.ErrUnsupported, "LUKS"},
		{"encryption 3", put32(32, 3), disk.ErrUnsupported, "encryption method 3"},
		{"l1_size 0", put32(36, 0), disk.ErrCorrupt, "need 2"},
		{"l1_size too small", put32(36, 1), disk.ErrCorrupt, "need 2"},
		{"l1_size with VM state", put32(36, 64), nil, ""},
		{"l1_size beyond the file", put32(36, 1<<20), disk.ErrCorrupt, "not in whole clusters"},
		{"l1_size beyond QEMU's", put32(36, 4<<20+1), disk.ErrLimit, "entries"},
		{"l1_size huge", put32(36, 0xfffffff0), disk.ErrLimit, "entries"},
		{"L1 nowhere", put64(40, 0), disk.ErrCorrupt, "not in whole clusters"},
		{"L1 unaligned", put64(40, smallL1+8), disk.ErrCorrupt, "not aligned"},
		{"L1 beyond the file", put64(40, smallFile), disk.ErrCorrupt, "not in whole clusters"},
		{"L1 at max", put64(40, 1<<64-512), disk.ErrCorrupt, "not in whole clusters"},
		{"refcount table nowhere", put64(48, 0), disk.ErrCorrupt, "refcount"},
		{"refcount table unaligned", put64(48, 513), disk.ErrCorrupt, "refcount"},
		{"refcount table beyond the file", put64(48, smallFile), disk.ErrCorrupt, "refcount"},
		{"refcount table empty", put32(56, 0), disk.ErrCorrupt, "refcount"},
		{"refcount table huge", put32(56, 1<<32-1), disk.ErrLimit, "refcount"},
		{"65537 snapshots", put32(60, 65537), disk.ErrLimit, "65537 snapshots"},
		{"2 snapshots where there is 1", put32(60, 2), disk.ErrCorrupt, "extra data"},
		{"snapshots nowhere", put64(64, 0), disk.ErrCorrupt, "snapshots_offset"},
		{"snapshots unaligned", put64(64, smallSnapshots+1), disk.ErrCorrupt, "snapshots_offset"},
		{"snapshots beyond the file", put64(64, smallFile), disk.ErrCorrupt, "snapshots_offset"},
		{"dirty", put64(72, 1), nil, ""},
		{"corrupt", put64(72, 2), disk.ErrCorrupt, "marked"},
		{"data file", put64(72, 4), disk.ErrUnsupported, "external data file"},
		{"compression bit alone", put64(72, 8), disk.ErrCorrupt, "compression type"},
		{"subclusters too small", put64(72, 16), disk.ErrCorrupt, "cluster_bits"},
		{"feature bit 5", put64(72, 32), disk.ErrUnsupported, "bit 5"},
		{"feature bit 63", put64(72, 1<<63), disk.ErrUnsupported, "bit 63"},
		{"any compatible bit", put64(80, 1<<64-1), nil, ""},
		{"any autoclear bit but one", put64(88, 1<<64-3), nil, ""},
		{"raw data file", put64(88, 2), disk.ErrCorrupt, "raw"},
		{"an end of extensions that has no end", put32(116, 1<<32-1), disk.ErrCorrupt, "bytes long"},
		{"refcount_order 6", put32(96, 6), nil, ""},
		{"refcount_order 7", put32(96, 7), disk.ErrCorrupt, "refcount_order"},
		{"header_length 96", put32(100, 96), disk.ErrCorrupt, "header_length"},
		{"header_length 108", put32(100, 108), disk.ErrCorrupt, "header_length"},
		{"header_length 104", put32(100, 104), nil, ""},
		{"header_length 512", put32(100, 512), nil, ""},
		{"header_length 520", put32(100, 520), disk.ErrCorrupt, "header_length"},
		{"compression type alone", put32(104, 1<<24), disk.ErrCorrupt, "feature bit"},
		{"compression type 2", all(put64(72, 8), put32(104, 2<<24)), disk.ErrUnsupported, "compression type 2"},
		{"an unknown extension", put32(112, 0x12345678), nil, ""},
		{"an endless extension", func(s *small) { s.put32(112, 1, 1<<32-1) }, disk.ErrCorrupt, "bytes long"},
		{"an extension to the end", func(s *small) { s.put32(112, 1, 392) }, nil, ""},
		{"an extension over the end", func(s *small) { s.put32(112, 1, 393) }, disk.ErrCorrupt, "bytes long"},
		{"the longest format name", func(s *small) { s.put32(112, 0xe2792aca, 32) }, nil, ""},
		{"a long format name", func(s *small) { s.put32(112, 0xe2792aca, 33) }, disk.ErrCorrupt, "33 bytes"},
		{"backing name empty", put64(8, 200), disk.ErrCorrupt, "backing_file_size"},
		{"backing name long", all(put64(8, 200), put32(16, 1024)), disk.ErrCorrupt, "backing_file_size"},
		{"backing name in header", all(put64(8, 100), put32(16, 4)), disk.ErrCorrupt, "backing file's name"},
		{"backing name over the cluster", all(put64(8, 510), put32(16, 4)), disk.ErrCorrupt, "backing file's name"},
		{"backing name at max", all(put64(8, 1<<64-1), put32(16, 4)), disk.ErrCorrupt, "backing file's name"},
	} {
		t.Run(v.name, func(t *testing.T) {
			s := newSmall(t, "zlib")
			v.change(s)
			got, err := s.read("")
			checkOutcome(t, got, err, s.active, v.want, v.says)
		})
	}
}

// checkOutcome checks that a read gave content, or the error wanted.
func checkOutcome(t *testing.T, got []byte, err error, content []byte, want error, says string) {
	t.Helper()
	if want == nil {
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("not the content: %v", err)
		}
		return
	}
	wantError(t, err, want)
	if err != nil && !strings.Contains(err.Error(), says) {
		t.Errorf("the error %q does not say %q", err, says)
	}
}

// TestVersion2 has no fields behind byte 72.
func TestVersion2(t *testing.T) {
	s := newSmall(t, "zlib")
	s.put32(4, 2)
	s.put64(smallL2+8, 0) // zero clusters are of version 3
	clear(s.image[72:smallCluster])
	got, err := s.read("")
	checkOutcome(t, got, err, s.active, nil, "")
	s.put64(smallL2+8, 1)
	_, err = s.read("")
	wantError(t, err, disk.ErrCorrupt)
}

// TestBackingNames: the name of a backing file is shown, and never followed.
func TestBackingNames(t *testing.T) {
	for name, at := range map[string]int{ // behind the header, its extension and the end of its extensions
		"/etc/passwd": 136, "/dev/zero": 136, "small.qcow2": 136, "nbd://x/\x1b[31m": 136, "json:{}": 136, "a\x00b": 136, strings.Repeat("x", 300): 136,
		"right behind the extension": 128, "right behind the header": 112,
	} {
		s := newSmall(t, "zlib")
		clear(s.image[112:smallCluster]) // no bitmaps
		format := ""
		if at > 112 {
			format = "qcow2"
			s.put32(112, 0xe2792aca, 5)
			copy(s.image[120:], format)
		}
		s.put64(8, uint64(at))
		s.put32(16, uint32(len(name)))
		copy(s.image[at:], name)

		info, snapshots, err := qcow2.Inspect(bytes.NewReader(s.image), smallFile)
		if err != nil || info.BackingFile != name || info.BackingFormat != format || len(snapshots) != 1 {
			t.Errorf("%q: %+v, %v", name, info, err)
		}
		_, err = s.read("")
		wantError(t, err, disk.ErrUnsupported)
		if strings.ContainsAny(err.Error(), "\x1b\x00") {
			t.Errorf("the error has the name as it is: %q", err)
		}
		backing := bytes.Repeat([]byte{9}, 5000)
		got, err := readAll(s.image, qcow2.Options{Backing: disktest.Mem(backing)})
		want := bytes.Clone(s.active)
		copy(want[2*smallCluster:3*smallCluster], backing)
		copy(want[4*smallCluster:5000], backing)
		checkOutcome(t, got, err, want, nil, "")
	}
}

// TestBackingNotNamed: QEMU would not look at it.
func TestBackingNotNamed(t *testing.T) {
	_, err := readAll(newSmall(t, "zlib").image, qcow2.Options{Backing: disktest.Mem(nil)})
	wantError(t, err, disk.ErrUnsupported)
}

// TestHiddenSectors: a size that is not whole sectors is rounded down, as QEMU
// does.
func TestHiddenSectors(t *testing.T) {
	s := newSmall(t, "zlib")
	s.put64(24, smallSize-1)
	s.put64(smallSnapshots+48, smallSize-511)
	for _, snapshot := range []string{"", "s"} {
		im, err := qcow2.Open(bytes.NewReader(s.image), smallFile, qcow2.Options{Snapshot: snapshot})
		if err != nil || im.Size() != smallSize-512 {
			t.Fatalf("size %d, %v", im.Size(), err)
		}
	}
	path := filepath.Join(t.TempDir(), "odd.qcow2")
	if err := os.WriteFile(path, s.image, 0o600); err != nil {
		t.Fatal(err)
	}
	if n := len(content(t, path)); n != smallSize-512 {
		t.Errorf("QEMU says %d", n)
	}
}

// failing fails every read that touches [from, to).
type failing struct {
	image    []byte
	from, to int64
}

var errDisk = errors.New("the host's disk is broken")

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off < f.to && off+int64(len(p)) > f.from {
		return 0, errDisk
	}
	return bytes.NewReader(f.image).ReadAt(p, off)
}

// TestReadErrors: an error of the file below is passed on, and is not damage.
func TestReadErrors(t *testing.T) {
	s := newSmall(t, "zlib")
	needed := 0
	for at := range int64(smallFile) { // each byte of the file, one after the other
		r := failing{s.image, at, at + 1}
		active, err := readFrom(r, smallFile)
		taken, err2 := readStateFrom(r, smallFile, qcow2.Options{Snapshot: "s"})
		dirty, err3 := dirtyFrom(r, smallFile, "b")
		if err == nil && !bytes.Equal(active, s.active) || err2 == nil && !bytes.Equal(taken, s.frozen) || err3 == nil && !slices.Equal(dirty, smallDirty) {
			t.Errorf("byte %#x cannot be read: something else is, without an error", at)
		}
		for _, err := range []error{err, err2, err3} {
			if err == nil {
				continue
			}
			needed++
			if !errors.Is(err, errDisk) || errors.Is(err, disk.ErrCorrupt) {
				t.Errorf("failure at %#x: %v", at, err)
			}
		}
	}
	if needed < smallFile/2 {
		t.Errorf("%d bytes are needed", needed)
	}
	s.put64(8, 300)
	binary.BigEndian.PutUint32(s.image[16:], 4)
	im, err := qcow2.Open(bytes.NewReader(s.image), smallFile, qcow2.Options{Backing: broken{}})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := im.ReadAt(make([]byte, smallSize), 0); n != 2*smallCluster || !errors.Is(err, errDisk) {
		t.Errorf("a broken backing file: %d, %v", n, err)
	}
	if err := im.Extents(0, smallSize, func(disk.Extent) error { return nil }); !errors.Is(err, errDisk) {
		t.Errorf("a broken backing file: %v", err)
	}
}

// broken is a backing file that nothing can be learnt about.
type broken struct{}

func (broken) Size() int64                                         { return 1 << 40 }
func (broken) ReadAt([]byte, int64) (int, error)                   { return 0, errDisk }
func (broken) Extents(_, _ int64, _ func(disk.Extent) error) error { return errDisk }
