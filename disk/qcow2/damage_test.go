package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/qcow2"
)

// TestEntries: one L1 or L2 entry, and what must come of it.
func TestEntries(t *testing.T) {
	const compressed = 1 << 62
	for _, v := range []struct {
		name  string
		at    int
		entry uint64
		want  error // nil: the content stays
		says  string
	}{
		{"L1 not copied", smallL1, smallL2, nil, ""},
		{"L1 reserved bit 0", smallL1, smallL2 | 1, disk.ErrCorrupt, "reserved"},
		{"L1 reserved bit 56", smallL1, smallL2 | 1<<56, disk.ErrCorrupt, "reserved"},
		{"L1 unaligned", smallL1, smallL2 + 8, disk.ErrCorrupt, "reserved"},
		{"L1 to itself", smallL1, smallL1 | copied, disk.ErrCorrupt, "L1 table itself"},
		{"L1 to the end", smallL1, smallFile, disk.ErrCorrupt, "the file ends"},
		{"L1 far beyond", smallL1, 1<<56 - 512, disk.ErrCorrupt, "the file ends"},
		{"L2 not copied", smallL2, smallData, nil, ""},
		{"L2 reserved bit 1", smallL2, smallData | 2, disk.ErrCorrupt, "reserved"},
		{"L2 reserved bit 61", smallL2, smallData | 1<<61, disk.ErrCorrupt, "reserved"},
		{"L2 to itself", smallL2, smallL2 | copied, disk.ErrCorrupt, "a table that maps it"},
		{"L2 to the L1 table", smallL2, smallL1 | copied, disk.ErrCorrupt, "a table that maps it"},
		{"L2 to the end", smallL2, smallFile, disk.ErrCorrupt, "the file ends"},
		{"L2 far beyond", smallL2, 1<<56 - 512, disk.ErrCorrupt, "the file ends"},
		{"L2 allocated nowhere", smallL2, copied, disk.ErrCorrupt, "nowhere"},
		{"zero, set aside", smallL2 + 8, smallData | 1 | copied, nil, ""},
		{"zero, set aside beyond the end", smallL2 + 8, 1<<40 | 1 | copied, nil, ""},
		{"zero, reserved bits", smallL2 + 8, smallData | 3, disk.ErrCorrupt, "reserved"},
		{"compressed, more sectors than there are", smallL2 + 24, smallCompressed | compressed | 1<<61, nil, ""},
		{"compressed, copied", smallL2 + 24, smallCompressed | compressed | copied, disk.ErrCorrupt, "reserved"},
		{"compressed header", smallL2 + 24, compressed | 100, disk.ErrCorrupt, "between"},
		{"compressed beyond the end", smallL2 + 24, compressed | smallFile, disk.ErrCorrupt, "between"},
		{"compressed far beyond", smallL2 + 24, compressed | (1<<61 - 1), disk.ErrCorrupt, "between"},
		{"compressed, not a stream", smallL2 + 24, compressed | (smallFile - 1), disk.ErrCorrupt, "compressed cluster"},
		{"compressed zeros", smallL2 + 24, compressed | (smallRefTable + 32), disk.ErrCorrupt, "compressed cluster"},
	} {
		t.Run(v.name, func(t *testing.T) {
			s := newSmall(t, "zlib")
			s.put64(v.at, v.entry)
			got, err := s.read("")
			checkOutcome(t, got, err, s.active, v.want, v.says)
			_, err = s.read("s")
			if err != nil {
				t.Errorf("the snapshot, which is whole: %v", err)
			}
		})
	}
}

// TestLargerClusters: an offset may be a multiple of 512 and still not of the
// cluster size.
func TestLargerClusters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	for _, options := range []string{"cluster_size=64k", "extended_l2=on"} {
		create(t, path, options, "1M")
		qemuIO(t, path, "write -P 1 0 64k")
		image, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		l1 := binary.BigEndian.Uint64(image[40:])
		l2 := binary.BigEndian.Uint64(image[l1:]) &^ copied
		for _, at := range []uint64{l1, l2} {
			damaged := bytes.Clone(image)
			damaged[at+6] ^= 2 // 512
			_, err := readAll(damaged, qcow2.Options{})
			wantError(t, err, disk.ErrCorrupt)
		}
	}
}

// TestSubclusterEntries: the two halves of an extended entry must agree.
func TestSubclusterEntries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	create(t, path, "extended_l2=on", "1M")
	qemuIO(t, path, "write -P 1 0 64k")
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l2 := binary.BigEndian.Uint64(image[binary.BigEndian.Uint64(image[40:]):]) &^ copied
	host := binary.BigEndian.Uint64(image[l2:])
	for _, v := range []struct {
		entry, bitmap uint64
		want          error
	}{
		{host, 1<<32 - 1, nil},
		{host, 0, nil},
		{0, 0, nil},
		{0, (1<<32 - 1) << 32, nil},
		{host, 1<<33 | 1, nil},
		{host, 1<<32 | 1, disk.ErrCorrupt}, // allocated and zero
		{0, 1 << 7, disk.ErrCorrupt},       // allocated nowhere
		{host | 1, 1, disk.ErrCorrupt},     // the zero bit of standard entries
		{1<<62 | 1<<20, 1, disk.ErrCorrupt},
	} {
		binary.BigEndian.PutUint64(image[l2:], v.entry)
		binary.BigEndian.PutUint64(image[l2+8:], v.bitmap)
		_, err := readAll(image, qcow2.Options{})
		if v.want == nil && err != nil {
			t.Errorf("entry %#x, bitmap %#x: %v", v.entry, v.bitmap, err)
		}
		if v.want != nil {
			wantError(t, err, v.want)
		}
	}
}

// TestCompressedSubclusters: a compressed cluster has no subclusters, and where its
// entry says something of them it is none.
func TestCompressedSubclusters(t *testing.T) {
	dir := t.TempDir()
	plain, path := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2")
	want := bytes.Repeat([]byte("compressed "), 1<<20/11+1)[:1<<20]
	if err := os.WriteFile(plain, want, 0o600); err != nil {
		t.Fatal(err)
	}
	disktest.Run(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "extended_l2=on", plain, path)
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l2 := binary.BigEndian.Uint64(image[binary.BigEndian.Uint64(image[40:]):]) &^ copied
	entry := binary.BigEndian.Uint64(image[l2:])
	if got, err := readAll(image, qcow2.Options{}); err != nil || !bytes.Equal(got, want) || entry>>62 != 1 {
		t.Fatalf("entry %#x: other content, or %v", entry, err)
	}
	for _, v := range [][2]uint64{{entry, 1}, {entry, 1 << 63}, {entry | copied, 0}} {
		binary.BigEndian.PutUint64(image[l2:], v[0])
		binary.BigEndian.PutUint64(image[l2+8:], v[1])
		_, err := readAll(image, qcow2.Options{})
		wantError(t, err, disk.ErrCorrupt)
	}
}

// TestSnapshotTable: one change to the entry of the snapshot.
func TestSnapshotTable(t *testing.T) {
	const at = smallSnapshots
	for _, v := range []struct {
		name   string
		change func(*small)
		want   error
		says   string
	}{
		{"as it is", func(s *small) {}, nil, ""},
		{"L1 nowhere", func(s *small) { s.put64(at, 0) }, disk.ErrCorrupt, "not in whole clusters"},
		{"L1 unaligned", func(s *small) { s.put64(at, smallSnapshotL1+8) }, disk.ErrCorrupt, "not in whole clusters"},
		{"L1 beyond the end", func(s *small) { s.put64(at, smallFile) }, disk.ErrCorrupt, "not in whole clusters"},
		{"L1 at max", func(s *small) { s.put64(at, 1<<64-512) }, disk.ErrCorrupt, "not in whole clusters"},
		{"l1_size 0", func(s *small) { s.put32(at+8, 0) }, disk.ErrCorrupt, "need 2"},
		{"l1_size huge", func(s *small) { s.put32(at+8, 0xfffffff0) }, disk.ErrLimit, "entries"},
		{"id over the end", func(s *small) { s.put32(at+12, 0xffff<<16) }, disk.ErrCorrupt, "the file ends"},
		{"name over the end", func(s *small) { s.put32(at+12, 0xffff) }, disk.ErrCorrupt, "the file ends"},
		{"nanoseconds", func(s *small) { s.put32(at+20, 1_000_000_000) }, disk.ErrCorrupt, "nanoseconds"},
		{"no extra data", func(s *small) { s.put32(at+36, 0) }, disk.ErrCorrupt, "extra data"},
		{"little extra data", func(s *small) { s.put32(at+36, 15) }, disk.ErrCorrupt, "extra data"},
		{"much extra data", func(s *small) { s.put32(at+36, 1025) }, disk.ErrLimit, "extra data"},
		{"endless extra data", func(s *small) { s.put32(at+36, 1<<32-1) }, disk.ErrLimit, "extra data"},
		{"size beyond L1", func(s *small) { s.put64(at+48, 64<<10+512) }, disk.ErrCorrupt, "2 entries"},
		{"size max", func(s *small) { s.put64(at+48, 1<<64-1) }, disk.ErrLimit, "can map"},
		{"active L1 elsewhere", func(s *small) { s.put64(40, 1<<50) }, nil, ""},
		{"active refcounts elsewhere", func(s *small) { s.put64(48, 1<<50) }, nil, ""},
	} {
		t.Run(v.name, func(t *testing.T) {
			s := newSmall(t, "zlib")
			v.change(s)
			got, err := s.read("s")
			checkOutcome(t, got, err, s.frozen, v.want, v.says)
		})
	}
}

// TestOldSnapshotEntries: version 2 knows entries that do not record the size of
// the disk, which may have grown since.
func TestOldSnapshotEntries(t *testing.T) {
	s := newSmall(t, "zlib")
	s.put32(4, 2)
	clear(s.image[72:smallCluster])
	s.put32(smallSnapshots+8, 1) // maps 32 KiB of the 40
	s.put32(smallSnapshots+32, 7, 0)
	copy(s.image[smallSnapshots+40:], "1s")
	got, err := s.read("s")
	checkOutcome(t, got, err, s.frozen, nil, "")
	_, list, err := qcow2.Inspect(bytes.NewReader(s.image), smallFile)
	if err != nil || len(list) != 1 || list[0].VMStateSize != 7 || list[0].Size != smallSize {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestManySnapshots: a table as large as the limit is read, a larger one is not,
// and neither takes memory that the file does not hold.
func TestManySnapshots(t *testing.T) {
	table := func(count, nameSize int) *small {
		s := newSmall(t, "zlib")
		s.put32(60, uint32(count))
		s.put64(64, smallFile)
		entry := bytes.Clone(s.image[smallSnapshots : smallSnapshots+56])
		binary.BigEndian.PutUint16(entry[12:], 0)
		binary.BigEndian.PutUint16(entry[14:], uint16(nameSize))
		entry = append(entry, make([]byte, nameSize)...)
		entry = append(entry, make([]byte, -len(entry)&7)...)
		s.image = append(s.image, bytes.Repeat(entry, count)...)
		return s
	}
	got, err := table(65536, 0).read("")
	checkOutcome(t, got, err, newSmall(t, "zlib").active, nil, "")
	_, err = table(400, 65535).read("") // 25 MiB
	wantError(t, err, disk.ErrLimit)
}

// TestOneTableForAll: an L1 table that uses one L2 table again and again would
// make a small file endless work.
func TestOneTableForAll(t *testing.T) {
	s := newSmall(t, "zlib")
	const tables = smallFile/smallCluster + 1
	s.put64(24, tables*32<<10)
	s.put32(36, tables)
	for i := range tables {
		s.put64(smallL1+8*i, smallL2|copied)
	}
	_, err := s.read("")
	wantError(t, err, disk.ErrCorrupt)
}

// mutations are the values that every field is set to: the extremes, the
// neighbours of what is there, and each bit of it turned.
func mutations(old uint64, width int) []uint64 {
	mask := uint64(1)<<(8*width) - 1
	if width == 8 {
		mask = 1<<64 - 1
	}
	values := []uint64{0, 1, mask, mask - 1, mask >> 1, mask>>1 + 1, old - 1, old + 1, old * 2, old / 2}
	for bit := range 8 * width {
		values = append(values, old^1<<bit)
	}
	for i := range values {
		values[i] &= mask
	}
	return values
}

// fields are the offset and the width of every field of the small image.
func fields() [][2]int {
	list := [][2]int{
		{0, 4}, {4, 4}, {8, 8}, {16, 4}, {20, 4}, {24, 8}, {32, 4}, {36, 4}, {40, 8}, {48, 8}, {56, 4}, {60, 4},
		{64, 8}, {72, 8}, {80, 8}, {88, 8}, {96, 4}, {100, 4}, {104, 1},
		{112, 4}, {116, 4}, {120, 4}, {124, 4}, {128, 8}, {136, 8}, {smallBitTable, 8}, {smallBits, 8},
		{smallL1, 8}, {smallL1 + 8, 8}, {smallSnapshotL1, 8}, {smallSnapshotL2, 8},
	}
	for i := range 5 {
		list = append(list, [2]int{smallL2 + 8*i, 8})
	}
	for _, f := range [][2]int{{0, 8}, {8, 4}, {12, 2}, {14, 2}, {16, 4}, {20, 4}, {24, 8}, {32, 4}, {36, 4}, {40, 8}, {48, 8}} {
		list = append(list, [2]int{smallSnapshots + f[0], f[1]})
	}
	for _, f := range [][2]int{{0, 8}, {8, 4}, {12, 4}, {16, 1}, {17, 1}, {18, 2}, {20, 4}, {24, 1}} {
		list = append(list, [2]int{smallBitmaps + f[0], f[1]})
	}
	for i := range 16 {
		list = append(list, [2]int{smallCompressed + i, 1})
	}
	return list
}

func put(b []byte, v uint64, width int) {
	for i := range width {
		b[i] = byte(v >> (8 * (width - 1 - i)))
	}
}

func get(b []byte, width int) (v uint64) {
	for _, c := range b[:width] {
		v = v<<8 | uint64(c)
	}
	return v
}

// places are the structures whose names say where they are: there is one of each,
// or they have a name.
var places = regexp.MustCompile(`^(L1 table|external data file|snapshot table|.* "[bs]")$`)

// checkAnyOutcome: content or one clear error, in bounded memory.
func checkAnyOutcome(t *testing.T, what string, image []byte, snapshot string) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := readAll(image, qcow2.Options{Snapshot: snapshot})
	if err == nil && snapshot == "" {
		_, err = dirtyRanges(image, "b")
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
		t.Errorf("%s: %d bytes allocated", what, used)
	}
	var e *disk.Error
	if err != nil && (!errors.As(err, &e) || e.Structure == "" || e.Offset < 0 && !places.MatchString(e.Structure)) {
		t.Errorf("%s: the error names no structure or no place: %v", what, err)
	}
	for _, sentinel := range []error{disk.ErrCorrupt, disk.ErrUnsupported, disk.ErrLimit, disk.ErrNotExist} {
		if errors.Is(err, sentinel) {
			return
		}
	}
	if err != nil {
		t.Errorf("%s: %v, which is none of the sentinels", what, err)
	}
}

// TestEveryField sets every field to everything in mutations.
func TestEveryField(t *testing.T) {
	for _, compression := range []string{"zlib", "zstd"} {
		for _, f := range fields() {
			s := newSmall(t, compression)
			old := get(s.image[f[0]:], f[1])
			for _, v := range mutations(old, f[1]) {
				put(s.image[f[0]:], v, f[1])
				for _, snapshot := range []string{"", "s"} {
					checkAnyOutcome(t, fmt.Sprintf("%s, field at %#x set to %#x, snapshot %q", compression, f[0], v, snapshot), s.image, snapshot)
				}
			}
		}
	}
}

// TestEveryCut cuts the file at every structure, and around it.
func TestEveryCut(t *testing.T) {
	s := newSmall(t, "zstd")
	whole := s.image
	for at := 0; at <= smallFile; at += smallCluster {
		for _, n := range []int{at - 1, at, at + 1, at + 8, at + 56} {
			if n < 0 || n > smallFile {
				continue
			}
			s.image = whole[:n]
			for _, snapshot := range []string{"", "s"} {
				checkAnyOutcome(t, fmt.Sprintf("cut to %d, snapshot %q", n, snapshot), s.image, snapshot)
			}
			// What comes out is right up to the cut: the only bytes that may
			// be zeros instead are those behind it, of the last cluster.
			if got, err := s.read(""); err == nil && n < smallCompressed && !bytes.Equal(got, s.active) {
				t.Errorf("cut to %d: wrong content, and no error", n)
			}
		}
	}
}

// TestDamageAgainstQEMU: what is read from a damaged image in spite of the damage
// is what QEMU reads.
func TestDamageAgainstQEMU(t *testing.T) {
	dir := t.TempDir()
	compared := 0
	for _, f := range fields() {
		if f[0] >= smallSnapshots || f[0] < 20 { // the active state; no backing
			continue
		}
		s := newSmall(t, "zlib")
		s.put64(88, 0) // QEMU does not read a disk without its bitmaps
		s.put32(112, 0)
		old := get(s.image[f[0]:], f[1])
		for _, v := range mutations(old, f[1])[:8] {
			put(s.image[f[0]:], v, f[1])
			ours, err := s.read("")
			if err != nil || v == old {
				continue
			}
			in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
			if err := os.WriteFile(in, s.image, 0o600); err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("field at %#x set to %#x", f[0], v)
			if msg, err := exec.Command("qemu-img", "convert", "-f", "qcow2", "-O", "raw", in, out).CombinedOutput(); err != nil {
				t.Errorf("%s: read here, but QEMU says %s", what, msg)
				continue
			}
			theirs, err := readStart(out)
			if err != nil || !bytes.Equal(ours, theirs) {
				t.Errorf("%s: QEMU reads %d bytes that are not ours, %d: %v", what, len(theirs), len(ours), err)
			}
			compared++
		}
	}
	if compared < 20 {
		t.Errorf("only %d damaged images were read by both", compared)
	}
}

// readStart reads as much of a file as readAll reads of an image.
func readStart(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 1<<20))
}
