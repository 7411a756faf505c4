package qcow2_test

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/qcow2"
)

// The places in the image of newSmall: one cluster of 512 bytes each.
const (
	smallCluster    = 512
	smallRefTable   = 1 * smallCluster
	smallRefBlock   = 2 * smallCluster
	smallL1         = 3 * smallCluster
	smallL2         = 4 * smallCluster
	smallData       = 5 * smallCluster
	smallCompressed = 6 * smallCluster
	smallSnapshots  = 7 * smallCluster
	smallSnapshotL1 = 8 * smallCluster
	smallSnapshotL2 = 9 * smallCluster
	smallSnapData   = 10 * smallCluster
	smallBitmaps    = 11 * smallCluster
	smallBitTable   = 12 * smallCluster
	smallBits       = 13 * smallCluster
	smallFile       = 14 * smallCluster

	// smallSize is the virtual size: one L2 table and a bit.
	smallSize = 40 << 10
	// copied is bit 63 of L1 and L2 entries.
	copied = 1 << 63
)

// small is an image with one of everything, whose every byte the tests know: the
// subject of damage.
//
// Guest cluster 0 is data, 1 zeros, 2 unallocated, 3 compressed; snapshot "s"
// (id "1") has other data in cluster 0 and in no other. Bitmap "b" says that
// clusters 0, 3 and 4 were written to, and the last one.
type small struct {
	image          []byte
	active, frozen []byte // what the guest reads, and what the snapshot holds
}

func newSmall(t testing.TB, compression string) *small {
	t.Helper()
	s := &small{
		image:  make([]byte, smallFile),
		active: make([]byte, smallSize),
		frozen: make([]byte, smallSize),
	}
	for i := range smallCluster {
		s.active[i] = byte(i) | 1
		s.frozen[i] = byte(i) ^ 0x5a
	}
	text := bytes.Repeat([]byte("drydock "), smallCluster/8)
	copy(s.active[3*smallCluster:], text)

	s.put32(0, 0x514649fb, 3)
	s.put32(20, 9)
	s.put64(24, smallSize)
	s.put32(36, 2)
	s.put64(40, smallL1, smallRefTable)
	s.put32(56, 1, 1)
	s.put64(64, smallSnapshots)
	s.put32(96, 4, 112)
	var packed []byte
	if compression == "zstd" {
		s.put64(72, 1<<3)
		s.image[104] = 1
		packed = packZstd(t, text)
	} else {
		packed = packDeflate(t, text)
	}

	s.put64(smallRefTable, smallRefBlock)
	for i := range smallFile / smallCluster {
		binary.BigEndian.PutUint16(s.image[smallRefBlock+2*i:], 1)
	}
	s.put64(smallL1, smallL2|copied)
	s.put64(smallL2, smallData|copied, 1, 0, smallCompressed|1<<62)
	copy(s.image[smallData:], s.active[:smallCluster])
	copy(s.image[smallCompressed:], packed)

	s.put64(smallSnapshots, smallSnapshotL1)
	s.put32(smallSnapshots+8, 2, 1<<16|1, 1700000000, 5)
	s.put32(smallSnapshots+36, 16)
	s.put64(smallSnapshots+48, smallSize)
	copy(s.image[smallSnapshots+56:], "1s")
	s.put64(smallSnapshotL1, smallSnapshotL2|copied)
	s.put64(smallSnapshotL2, smallSnapData|copied)
	copy(s.image[smallSnapData:], s.frozen[:smallCluster])

	s.put64(88, 1)
	s.put32(112, 0x23852875, 24, 1, 0)
	s.put64(128, 32, smallBitmaps)
	s.put64(smallBitmaps, smallBitTable)
	s.put32(smallBitmaps+8, 1, 2, 1<<24|9<<16|1, 0)
	s.image[smallBitmaps+24] = 'b'
	s.put64(smallBitTable, smallBits)
	s.image[smallBits], s.image[smallBits+9] = 0x19, 0x80
	return s
}

func (s *small) put32(off int, values ...uint32) {
	for i, v := range values {
		binary.BigEndian.PutUint32(s.image[off+4*i:], v)
	}
}

func (s *small) put64(off int, values ...uint64) {
	for i, v := range values {
		binary.BigEndian.PutUint64(s.image[off+8*i:], v)
	}
}

// read opens the image and reads all of it, as far as 1 MiB.
func (s *small) read(snapshot string) ([]byte, error) {
	return readAll(s.image, qcow2.Options{Snapshot: snapshot})
}

func readAll(image []byte, opts qcow2.Options) ([]byte, error) {
	return readStateFrom(bytes.NewReader(image), int64(len(image)), opts)
}

// readFrom reads the active state of an image in a file.
func readFrom(r io.ReaderAt, size int64) ([]byte, error) {
	return readStateFrom(r, size, qcow2.Options{})
}

func readStateFrom(r io.ReaderAt, size int64, opts qcow2.Options) ([]byte, error) {
	im, err := qcow2.Open(r, size, opts)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	out := make([]byte, min(im.Size(), 1<<20))
	if n, err := im.ReadAt(out, 0); n < len(out) {
		return out[:n], fmt.Errorf("read: %w", err)
	}
	return out, nil
}

func packDeflate(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, 6)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func packZstd(t testing.TB, data []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, append(opts, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// asError finds the disk.Error in err.
func asError(err error, e **disk.Error) bool { return errors.As(err, e) }

// runQuietly runs a reference tool that may fail.
func runQuietly(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w: %s", name, args, err, out)
	}
	return nil
}
