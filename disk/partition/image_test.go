package partition_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"
	"unicode/utf16"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/partition"
)

// image is a partitioned disk that a test makes byte by byte.
type image struct {
	sector int
	b      []byte
}

func newImage(sector, sectors int) *image {
	return &image{sector: sector, b: make([]byte, sector*sectors)}
}

func (im *image) sectors() int { return len(im.b) / im.sector }

// at returns the bytes from a sector on.
func (im *image) at(sector int) []byte { return im.b[sector*im.sector:] }

// record marks a sector as an MBR or an extended boot record with entries of
// type, first sector and number of sectors.
func (im *image) record(sector int, entries ...[3]uint32) {
	b := im.at(sector)
	b[510], b[511] = 0x55, 0xaa
	for i, e := range entries {
		p := b[446+16*i:]
		p[4] = byte(e[0])
		binary.LittleEndian.PutUint32(p[8:], e[1])
		binary.LittleEndian.PutUint32(p[12:], e[2])
	}
}

// gptEntry is a partition of a GPT.
type gptEntry struct {
	first, last uint64
	name        string
}

const gptEntries, gptEntrySize = 8, 128

// gpt writes a protective MBR and both tables. The entries take one sector of
// 4096 bytes, or two of 512.
func (im *image) gpt(entries ...gptEntry) {
	im.record(0, [3]uint32{0xee, 1, uint32(im.sectors() - 1)})
	n := im.sectors()
	array := (gptEntries*gptEntrySize + im.sector - 1) / im.sector
	for _, first := range []int{2, n - 1 - array} {
		for i, e := range entries {
			b := im.at(first)[i*gptEntrySize:]
			copy(b, "\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4") // Linux filesystem
			b[16] = byte(i + 1)
			binary.LittleEndian.PutUint64(b[32:], e.first)
			binary.LittleEndian.PutUint64(b[40:], e.last)
			binary.LittleEndian.PutUint64(b[48:], uint64(i))
			for j, u := range utf16.Encode([]rune(e.name)) {
				binary.LittleEndian.PutUint16(b[56+2*j:], u)
			}
		}
	}
	im.gptHeader(1, n-1, 2, 2+array, n-2-array)
	im.gptHeader(n-1, 1, n-1-array, 2+array, n-2-array)
}

func (im *image) gptHeader(self, other, entries, first, last int) {
	b := im.at(self)
	copy(b, "EFI PART")
	binary.LittleEndian.PutUint32(b[8:], 0x10000)
	binary.LittleEndian.PutUint32(b[12:], 92)
	for i, v := range []int{self, other, first, last} {
		binary.LittleEndian.PutUint64(b[24+8*i:], uint64(v))
	}
	copy(b[56:], "disk disk disk !")
	binary.LittleEndian.PutUint64(b[72:], uint64(entries))
	binary.LittleEndian.PutUint32(b[80:], gptEntries)
	binary.LittleEndian.PutUint32(b[84:], gptEntrySize)
	im.seal(self)
}

// seal makes the checksums of the header at a sector right, as far as the header
// leaves that possible.
func (im *image) seal(self int) {
	b := im.at(self)
	at := binary.LittleEndian.Uint64(b[72:])
	length := uint64(binary.LittleEndian.Uint32(b[80:])) * uint64(binary.LittleEndian.Uint32(b[84:]))
	if at < uint64(im.sectors()) && length <= uint64(len(im.at(int(at)))) {
		binary.LittleEndian.PutUint32(b[88:], crc32.ChecksumIEEE(im.at(int(at))[:length]))
	}
	clear(b[16:20])
	if size := binary.LittleEndian.Uint32(b[12:]); int(size) <= im.sector {
		binary.LittleEndian.PutUint32(b[16:], crc32.ChecksumIEEE(b[:size]))
	}
}

func (im *image) read() (*partition.Table, error) {
	return partition.Read(disktest.Mem(im.b), int64(im.sector))
}

// wantError checks that err is a disk.Error that wraps want.
func wantError(t *testing.T, err, want error) {
	t.Helper()
	var e *disk.Error
	if !errors.Is(err, want) || !errors.As(err, &e) || e.Layer == "" || e.Structure == "" {
		t.Errorf("the error is %#v (%v), want one that is %q", err, err, want)
	}
}
