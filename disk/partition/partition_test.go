package partition_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/partition"
)

// twoPartitions is a good GPT of 64 sectors.
func twoPartitions() *image {
	im := newImage(512, 64)
	im.gpt(gptEntry{10, 19, "a"}, gptEntry{20, 40, "b"})
	return im
}

// TestGPTDamage: one change to the primary table. The backup is right.
func TestGPTDamage(t *testing.T) {
	for name, v := range map[string]struct {
		at   int // byte, in the disk
		seal bool
		turn byte
	}{
		"magic":             {512, false, 1},
		"checksum":          {512 + 16, false, 1},
		"header":            {512 + 60, false, 1},
		"entries":           {1024 + 60, false, 1},
		"unused entry":      {1024 + 7*128 + 60, false, 1},
		"own sector":        {512 + 24, true, 3},
		"header size 0":     {512 + 12, true, 92},
		"header size huge":  {512 + 15, true, 0x80},
		"usable from 1":     {512 + 40, true, 4 ^ 1},
		"usable beyond":     {512 + 49, true, 1},
		"usable backwards":  {512 + 48, true, 60},
		"entries at 0":      {512 + 72, true, 2},
		"entries beyond":    {512 + 79, true, 0x80},
		"number of entries": {512 + 83, true, 0x80},
		"entry size 0":      {512 + 84, true, 128},
		"entry size 64":     {512 + 84, true, 128 ^ 64},
		"entry size 192":    {512 + 84, true, 64},
		"entry size huge":   {512 + 87, true, 0x80},
		"revision 2":        {512 + 10, true, 3},
		"a million entries": {512 + 82, true, 0x10},
	} {
		t.Run(name, func(t *testing.T) {
			im := twoPartitions()
			want, err := im.read()
			if err != nil || want.Damage != nil {
				t.Fatalf("%+v, %v", want, err)
			}
			im.b[v.at] ^= v.turn
			if v.seal {
				im.seal(1)
			}
			got, err := im.read()
			if err != nil || got.Damage == nil || len(got.Partitions) != 2 || got.Partitions[1].Offset != 20*512 || got.DiskID != want.DiskID {
				t.Fatalf("%+v, %v", got, err)
			}
			var e *disk.Error
			if !errors.As(got.Damage, &e) || e.Layer != "gpt" || e.Offset != 512 {
				t.Errorf("the damage is %v", got.Damage)
			}
			// With the backup gone as well there is no table, and not none.
			im.at(63)[0]++
			_, err = im.read()
			if !isDamage(err) {
				t.Errorf("both damaged: %v", err)
			}
		})
	}
}

func isDamage(err error) bool {
	return errors.Is(err, disk.ErrCorrupt) || errors.Is(err, disk.ErrUnsupported) || errors.Is(err, disk.ErrLimit)
}

// TestGPTPartitionsRefused: tables whose checksums are right, and whose
// partitions are not. The backup would say the same.
func TestGPTPartitionsRefused(t *testing.T) {
	for name, entries := range map[string][]gptEntry{
		"overlap by one sector": {{10, 20, ""}, {20, 30, ""}},
		"one within another":    {{10, 40, ""}, {20, 30, ""}},
		"the same twice":        {{10, 20, ""}, {10, 20, ""}},
		"backwards":             {{20, 10, ""}},
		"over the header":       {{1, 10, ""}},
		"before the usable":     {{3, 10, ""}},
		"over the backup":       {{20, 61, ""}},
		"beyond the disk":       {{20, 64, ""}},
		"far beyond":            {{20, 1<<64 - 1, ""}},
		"overflow":              {{1<<63 - 1, 1<<63 + 1, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			im := newImage(512, 64)
			im.gpt(entries...)
			_, err := im.read()
			wantError(t, err, disk.ErrCorrupt)
		})
	}
}

// TestGPTCut: a disk that ends within what its table calls usable is refused,
// whatever is left of it. The backup, which is behind that, may be cut.
func TestGPTCut(t *testing.T) {
	im := twoPartitions()
	whole := im.b
	for n := 0; n < len(whole); n += 256 {
		im.b = whole[:n]
		table, err := im.read()
		if n < 512 {
			if err != nil || table.Kind != partition.None {
				t.Errorf("%d bytes: %+v, %v", n, table, err)
			}
			continue
		}
		if n >= 61*512 { // sector 60 is the last usable one
			if err != nil || len(table.Partitions) != 2 {
				t.Errorf("%d bytes: %+v, %v", n, table, err)
			}
			continue
		}
		wantError(t, err, disk.ErrCorrupt)
	}
}

func TestGPTNames(t *testing.T) {
	im := twoPartitions()
	name := im.at(2)[56 : 56+72]
	for i := range name {
		name[i] = 0x41 // no end
	}
	binary.LittleEndian.PutUint16(name[2:], 0xd800) // half a surrogate pair
	binary.LittleEndian.PutUint16(name[4:], 0x1b)
	im.seal(1)
	table, err := im.read()
	if err != nil {
		t.Fatal(err)
	}
	got := table.Partitions[0].Name
	if want := []byte("\u4141\ufffd\x1b"); !bytes.HasPrefix(got, want) || len([]rune(string(got))) != 36 {
		t.Errorf("name %q", got)
	}
}

// bootSector puts the start of a FAT boot sector into sector 0.
func bootSector(im *image) {
	copy(im.b, "\xeb\x3c\x90mkfs.fat\x00\x02\x04\x01\x00\x02\x00\x02\x00\x50\xf8")
}

// TestWhichTable goes through the rules of the package comment.
func TestWhichTable(t *testing.T) {
	linux := func(start, count uint32) [3]uint32 { return [3]uint32{0x83, start, count} }
	for _, v := range []struct {
		name string
		make func(*image)
		want partition.Kind
		err  error
	}{
		{"1: zeros", func(*image) {}, partition.None, nil},
		{"1: entries, but no mark", func(im *image) { im.record(0, linux(10, 10)); im.b[511] = 0 }, partition.None, nil},
		{"2: GPT", func(im *image) { im.gpt(gptEntry{10, 19, ""}) }, partition.GPT, nil},
		{"2: hybrid", func(im *image) { im.gpt(); im.record(0, linux(10, 10), [3]uint32{0xee, 1, 9}) }, partition.GPT, nil},
		{"2: GPT, odd boot byte", func(im *image) { im.gpt(); im.b[446] = 7 }, partition.GPT, nil},
		{"2: protective, no GPT", func(im *image) { im.record(0, [3]uint32{0xee, 1, 63}) }, 0, disk.ErrCorrupt},
		{"2: GPT without protection", func(im *image) { im.gpt(); clear(im.at(0)[:512]) }, partition.None, nil},
		{"2: GPT replaced by an MBR", func(im *image) { im.gpt(); im.record(0, linux(10, 10)) }, partition.MBR, nil},
		{"2: EE elsewhere", func(im *image) { im.record(0, [3]uint32{0xee, 2, 10}) }, 0, disk.ErrCorrupt},
		{"3: text", func(im *image) { im.record(0, linux(10, 10)); im.b[446+48] = 'P' }, partition.None, nil},
		{"4: no entry", func(im *image) { im.record(0) }, partition.None, nil},
		{"4: type without sectors", func(im *image) { im.record(0, linux(10, 0)) }, partition.None, nil},
		{"4: sectors without type", func(im *image) { im.record(0, [3]uint32{0, 10, 10}) }, partition.None, nil},
		{"4: FAT", func(im *image) { im.record(0); bootSector(im) }, partition.None, nil},
		{"5: MBR", func(im *image) { im.record(0, linux(10, 10), linux(20, 44)) }, partition.MBR, nil},
		{"5: active", func(im *image) { im.record(0, linux(10, 10)); im.b[446] = 0x80 }, partition.MBR, nil},
		{"5: MBR with a FAT's parameters", func(im *image) { im.record(0, linux(10, 10)); bootSector(im) }, partition.MBR, nil},
		{"6: over the end", func(im *image) { im.record(0, linux(10, 55)) }, 0, disk.ErrCorrupt},
		{"6: far over the end", func(im *image) { im.record(0, linux(1<<32-1, 1<<32-1)) }, 0, disk.ErrCorrupt},
		{"6: at sector 0", func(im *image) { im.record(0, linux(0, 5)) }, 0, disk.ErrCorrupt},
		{"6: overlap", func(im *image) { im.record(0, linux(10, 11), linux(20, 5)) }, 0, disk.ErrCorrupt},
		{"6: FAT with code", func(im *image) { im.record(0, linux(10, 55)); bootSector(im) }, partition.None, nil},
		{"6: NTFS with code", func(im *image) { im.record(0, linux(10, 55)); copy(im.b, "\xeb\x52\x90NTFS    ") }, partition.None, nil},
		{"6: exFAT with code", func(im *image) { im.record(0, linux(0, 55)); copy(im.b, "\xeb\x76\x90EXFAT   ") }, partition.None, nil},
		{"6: no FAT after all", func(im *image) { im.record(0, linux(10, 55)); bootSector(im); im.b[13] = 3 }, 0, disk.ErrCorrupt},
		{"6: no jump", func(im *image) { im.record(0, linux(10, 55)); bootSector(im); im.b[0] = 0 }, 0, disk.ErrCorrupt},
	} {
		t.Run(v.name, func(t *testing.T) {
			im := newImage(512, 64)
			v.make(im)
			table, err := im.read()
			if v.err != nil {
				wantError(t, err, v.err)
				return
			}
			if err != nil || table.Kind != v.want {
				t.Errorf("%+v, %v; want %v", table, err, v.want)
			}
		})
	}
}

// TestLogical: chains of extended boot records. A good one has its partitions
// listed, as first sectors.
func TestLogical(t *testing.T) {
	link := func(start uint32) [3]uint32 { return [3]uint32{5, start, 1} }
	part := func(start, count uint32) [3]uint32 { return [3]uint32{0x83, start, count} }
	none := [3]uint32{}
	for _, v := range []struct {
		name string
		make func(*image)
		want []int64
		err  error
	}{
		{"two", func(im *image) {
			im.record(20, part(1, 4), link(10))
			im.record(30, part(1, 4))
		}, []int64{21, 31}, nil},
		{"backwards", func(im *image) {
			im.record(20, part(20, 4), link(10))
			im.record(30, part(1, 4))
		}, []int64{40, 31}, nil},
		{"an empty record", func(im *image) {
			im.record(20, none, link(10))
			im.record(30, part(1, 4))
		}, []int64{31}, nil},
		{"no record", func(*image) {}, nil, nil},
		{"a record without mark", func(im *image) { im.record(20, part(1, 4), link(10)) }, nil, disk.ErrCorrupt},
		{"to itself", func(im *image) { im.record(20, none, link(0)) }, nil, disk.ErrLimit},
		{"in a circle", func(im *image) {
			im.record(20, none, link(10))
			im.record(30, none, link(0))
		}, nil, disk.ErrLimit},
		{"in a circle of partitions", func(im *image) { im.record(20, part(1, 4), link(0)) }, nil, disk.ErrLimit},
		{"link out of the container", func(im *image) { im.record(20, none, link(40)) }, nil, disk.ErrCorrupt},
		{"link far out", func(im *image) { im.record(20, none, link(1<<32-1)) }, nil, disk.ErrCorrupt},
		{"link of another type", func(im *image) { im.record(20, none, part(10, 5)) }, nil, disk.ErrCorrupt},
		{"three entries", func(im *image) { im.record(20, part(1, 1), none, part(3, 1)) }, nil, disk.ErrCorrupt},
		{"partition over its record", func(im *image) { im.record(20, part(0, 4)) }, nil, disk.ErrCorrupt},
		{"partition out of the container", func(im *image) { im.record(20, part(1, 40)) }, nil, disk.ErrCorrupt},
		{"partition far out", func(im *image) { im.record(20, part(1<<32-1, 1<<32-1)) }, nil, disk.ErrCorrupt},
		{"overlap", func(im *image) {
			im.record(20, part(1, 12), link(10))
			im.record(30, part(1, 4))
		}, nil, disk.ErrCorrupt},
	} {
		t.Run(v.name, func(t *testing.T) {
			im := newImage(512, 64)
			im.record(0, part(1, 9), none, [3]uint32{0x0f, 20, 40})
			v.make(im)
			table, err := im.read()
			if v.err != nil {
				wantError(t, err, v.err)
				return
			}
			if err != nil || len(table.Partitions) != 2+len(v.want) || !table.Partitions[1].Extended() {
				t.Fatalf("%+v, %v", table, err)
			}
			for i, first := range v.want {
				if p := table.Partitions[2+i]; p.Number != 5+i || p.Offset != first*512 || p.Extended() {
					t.Errorf("logical partition %d: %+v, want it at sector %d", i, p, first)
				}
			}
		})
	}
}

func TestSectorSizes(t *testing.T) {
	for _, size := range []int64{-1, 1, 513, 1024, 2048, 8192, 1 << 62} {
		_, err := partition.Read(disktest.Mem(make([]byte, 1024)), size)
		wantError(t, err, disk.ErrUnsupported)
	}
	im := twoPartitions()
	_, err := partition.Read(disktest.Mem(im.b), 4096)
	wantError(t, err, disk.ErrCorrupt) // not guessed
}

// broken is a disk with a sector that cannot be read.
type broken struct {
	disktest.Mem
	sector int64
}

var errDisk = errors.New("the host's disk is broken")

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off/512 == b.sector {
		return 0, errDisk
	}
	return b.Mem.ReadAt(p, off)
}

// TestReadErrors: what cannot be read is not damage, and no reason to take the
// backup for the truth.
func TestReadErrors(t *testing.T) {
	dos := newImage(512, 64)
	dos.record(0, [3]uint32{5, 20, 40})
	for _, v := range []struct {
		im     *image
		sector int64
	}{{twoPartitions(), 0}, {twoPartitions(), 1}, {twoPartitions(), 2}, {dos, 20}} {
		_, err := partition.Read(broken{v.im.b, v.sector}, 512)
		if !errors.Is(err, errDisk) || isDamage(err) {
			t.Errorf("sector %d: %v", v.sector, err)
		}
	}
	im := twoPartitions()
	im.at(1)[0] = 0
	if _, err := partition.Read(broken{im.b, 63}, 512); !errors.Is(err, errDisk) {
		t.Errorf("the backup cannot be read: %v", err)
	}
}

func TestSection(t *testing.T) {
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(i*i>>8) | 1
	}
	d := disktest.Mem(data)
	for _, r := range [][2]int64{{0, 1 << 20}, {512, 4096}, {1<<20 - 512, 512}, {12345, 54321}, {1 << 20, 0}, {5, 0}} {
		s, err := partition.Section(d, r[0], r[1])
		if err != nil {
			t.Fatal(err)
		}
		disktest.Check(t, s, data[r[0]:r[0]+r[1]])
	}
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, 1<<20 + 1}, {1 << 20, 1}, {1, 1<<63 - 1}, {1<<63 - 1, 1}} {
		_, err := partition.Section(d, r[0], r[1])
		wantError(t, err, disk.ErrCorrupt)
	}
	// A disk that ends before it said it would is an error, and not an end.
	s, err := partition.Section(broken{d, 3}, 1024, 4096)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadAt(make([]byte, 10), 512); !errors.Is(err, errDisk) {
		t.Errorf("%v", err)
	}
	s, err = partition.Section(liar{d[:1000]}, 512, 1024)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.ReadAt(make([]byte, 1024), 0); n != 488 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d, %v", n, err)
	}
}

// liar says that it is larger than it is.
type liar struct{ disktest.Mem }

func (l liar) Size() int64 { return l.Mem.Size() * 2 }

func TestStrings(t *testing.T) {
	for kind, want := range map[partition.Kind]string{partition.None: "none", partition.MBR: "mbr", partition.GPT: "gpt"} {
		if kind.String() != want {
			t.Errorf("%d is %q", kind, kind)
		}
	}
	g := partition.GUID{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}
	if g.String() != "C12A7328-F81F-11D2-BA4B-00A0C93EC93B" {
		t.Errorf("the EFI system partition is %v", g)
	}
}
