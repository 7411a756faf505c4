package ecc

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

const (
	magic   = "drydkECC"
	version = 1
	// headerSize is that of the header, which is at both ends of the file:
	//
	//	 0   8  magic "drydkECC"
	//	 8   4  version, 1
	//	12   4  bytes of a block, 1024
	//	16   8  bytes of the pack
	//	24   4  stripes
	//	28   2  data blocks of a stripe
	//	30   2  parity blocks of a stripe
	//	32  32  SHA-256 of the pack
	//	64   4  CRC-32C of the bytes before
	//
	// All numbers are little-endian (docs/format/ecc.md).
	headerSize = 68
)

// layout is how a pack is dealt to stripes, and where its parity is in the file:
//
//	header | checksums | parity blocks | checksums | header
type layout struct {
	length  int64 // of the pack, in bytes
	stripes int64
	data    int64 // blocks of a stripe
	parity  int64 // parity blocks of a stripe
}

// plan chooses as few stripes as the code allows: the longer they are, the less it
// matters where damage is.
func plan(length int64, percent int) layout {
	blocks := ceil(length, blockSize)
	longest := int64(maxShards * 100 / (100 + percent))
	for ceil(longest*int64(percent), 100)+longest > maxShards {
		longest--
	}
	l := layout{length: length, stripes: ceil(blocks, longest)}
	if l.stripes == 1 && blocks+sectorBlocks > maxShards {
		l.stripes++ // at 1 %, a single stripe has no room for the parity of a sector
	}
	l.data = ceil(blocks, l.stripes)
	// In a stripe of few blocks a bad sector is more than a few percent.
	l.parity = max(ceil(l.data*int64(percent), 100), ceil(sectorBlocks, l.stripes))
	return l
}

func ceil(a, b int64) int64 { return (a + b - 1) / b }

func (l layout) blocks() int64       { return ceil(l.length, blockSize) }
func (l layout) parityBlocks() int64 { return l.stripes * l.parity }
func (l layout) sumsSize() int64     { return (l.blocks() + l.parityBlocks()) * sumSize }
func (l layout) parityStart() int64  { return headerSize + l.sumsSize() }
func (l layout) sumsEnd() int64      { return l.parityStart() + l.parityBlocks()*blockSize }
func (l layout) size() int64         { return l.sumsEnd() + l.sumsSize() + headerSize }

// header writes the header.
func (l layout) header(sum [sha256.Size]byte) []byte {
	b := append(make([]byte, 0, headerSize), magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, blockSize)
	b = binary.LittleEndian.AppendUint64(b, uint64(l.length))
	b = binary.LittleEndian.AppendUint32(b, uint32(l.stripes))
	b = binary.LittleEndian.AppendUint16(b, uint16(l.data))
	b = binary.LittleEndian.AppendUint16(b, uint16(l.parity))
	b = append(b, sum[:]...)
	return binary.LittleEndian.AppendUint32(b, sumOf(b))
}

// parseHeader reads a header of a pack that has at most limit bytes.
func parseHeader(b []byte, limit int64) (l layout, sum [sha256.Size]byte, err error) {
	if len(b) < headerSize || !bytes.HasPrefix(b, []byte(magic)) {
		return l, sum, fmt.Errorf("%w: there is no header", ErrFormat)
	}
	b = b[:headerSize]
	if sumOf(b[:headerSize-sumSize]) != binary.LittleEndian.Uint32(b[headerSize-sumSize:]) {
		return l, sum, fmt.Errorf("%w: the header is damaged", ErrFormat)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != version {
		return l, sum, fmt.Errorf("%w: it has version %d, and this drydock knows %d", ErrFormat, v, version)
	}
	if n := binary.LittleEndian.Uint32(b[12:]); n != blockSize {
		return l, sum, fmt.Errorf("%w: its blocks have %d bytes, and not %d", ErrFormat, n, blockSize)
	}
	length := binary.LittleEndian.Uint64(b[16:])
	if length == 0 || length > uint64(limit) {
		return l, sum, fmt.Errorf("%w: it is of a pack of %d bytes, and the limit is %d", ErrFormat, length, limit)
	}
	l = layout{
		length:  int64(length),
		stripes: int64(binary.LittleEndian.Uint32(b[24:])),
		data:    int64(binary.LittleEndian.Uint16(b[28:])),
		parity:  int64(binary.LittleEndian.Uint16(b[30:])),
	}
	if l.stripes == 0 || l.stripes > l.blocks() || l.parity == 0 || l.data+l.parity > maxShards || l.data != ceil(l.blocks(), l.stripes) {
		return l, sum, fmt.Errorf("%w: %d stripes of %d and %d blocks do not make a pack of %d bytes", ErrFormat, l.stripes, l.data, l.parity, l.length)
	}
	return l, [sha256.Size]byte(b[32:64]), nil
}
