package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/drydock-vm/drydock/disk/btrfs/internal/lzo"
	"github.com/drydock-vm/drydock/disk/internal/inflate"
)

// decoders are the compressions by their number on disk. Each fills the start
// of out from in and returns how much; sector is the size of one.
var decoders = [...]func(out, in []byte, sector int) (int, error){
	1: inflateZlib,
	2: decodeLZO,
	3: decodeZstd,
}

// stored identifies a compressed extent in the cache of decompressed ones.
type stored struct {
	logical, length, ram uint64
	compression          uint8
	verified             bool
}

// decompressed returns what a compressed extent holds. It may be shorter than
// what the extent stands for: the rest is zeros.
func (f *file) decompressed(e *extent) ([]byte, error) {
	if e.inline != nil {
		return f.decode(e, e.inline)
	}
	id := stored{e.logical, e.length, e.ram, e.compression, f.inode.flags&flagNoDataSum == 0}
	if data := f.fs.contents.Get(id); data != nil {
		return data, nil
	}
	buf := bounceBuffers.Get().(*[bounceSize]byte)
	defer bounceBuffers.Put(buf)
	in := buf[:e.length] // at most maxCompressed, as parseExtent checked
	if err := f.readChecked(in, e.logical, e); err != nil {
		return nil, err
	}
	data, err := f.decode(e, in)
	if err == nil && len(data) > 0 {
		f.fs.contents.Add(id, data)
	}
	return data, err
}

func (f *file) decode(e *extent, in []byte) ([]byte, error) {
	out := make([]byte, e.ram) // at most maxCompressed
	n, err := decoders[e.compression](out, in, int(f.fs.sb.sectorSize))
	if err != nil {
		at := e.at
		if e.inline == nil {
			at = offsetOf(e.logical)
		}
		return nil, layer.Damaged(f.name(), at, "decompressing %d bytes at %d: %v", len(in), e.start, err)
	}
	return out[:n], nil
}

// The header and the trailer of a zlib stream (RFC 1950): CMF and FLG, a deflate
// stream, and its Adler-32, big-endian.
const (
	zlibHeaderSize  = 2
	zlibTrailerSize = 4
	zlibDeflate     = 8 // the low 4 bits of CMF
	zlibMaxWindow   = 7 // the high 4
	zlibDictionary  = 0x20
)

// inflateZlib decodes a zlib stream, which may end before out does. What follows it
// is padding.
func inflateZlib(out, in []byte, _ int) (int, error) {
	if len(in) < zlibHeaderSize {
		return 0, io.ErrUnexpectedEOF
	}
	head := binary.BigEndian.Uint16(in)
	if method := head >> 8; method&0xf != zlibDeflate || method>>4 > zlibMaxWindow || head%31 != 0 || head&zlibDictionary != 0 {
		return 0, errors.New("it does not begin as a zlib stream")
	}
	in = in[zlibHeaderSize:]
	n, used, err := inflate.Decode(out, in)
	if errors.Is(err, inflate.ErrFull) {
		return n, nil // Linux does not read on either
	}
	if err != nil {
		return n, err
	}
	if len(in)-used < zlibTrailerSize {
		return n, io.ErrUnexpectedEOF
	}
	if binary.BigEndian.Uint32(in[used:]) != adler32.Checksum(out[:n]) {
		return n, errors.New("the stream's own checksum is another one")
	}
	return n, nil
}

const lzoHeaderSize = 4

// decodeLZO decodes what btrfs makes of a stream: its length, this word
// included, in 4 bytes, and pieces of a sector each behind their own length. A
// length does not cross a sector; what is too short for one is skipped.
func decodeLZO(out, in []byte, sector int) (int, error) {
	if len(in) < lzoHeaderSize {
		return 0, io.ErrUnexpectedEOF
	}
	total := binary.LittleEndian.Uint32(in)
	if uint64(total) > uint64(len(in)) || total < lzoHeaderSize {
		return 0, fmt.Errorf("the stream is said to have %d bytes", total)
	}
	in = in[:total]
	n := 0
	for at := lzoHeaderSize; at < len(in) && n < len(out); {
		if left := sector - at%sector; left < lzoHeaderSize {
			at += left
		}
		if at > len(in)-lzoHeaderSize {
			break
		}
		size := binary.LittleEndian.Uint32(in[at:])
		at += lzoHeaderSize
		if uint64(size) > uint64(len(in)-at) {
			return n, fmt.Errorf("a piece is said to have %d bytes, %d are left", size, len(in)-at)
		}
		m, err := lzoPiece(out[n:], in[at:at+int(size)], sector)
		if err != nil {
			return n, err
		}
		n += m
		at += int(size)
	}
	return n, nil
}

// lzoPiece decompresses a piece of at most a sector. Where out ends within it, the
// rest is dropped.
func lzoPiece(out, in []byte, sector int) (int, error) {
	if len(out) >= sector {
		return lzo.Decompress(out[:sector], in)
	}
	buf := bounceBuffers.Get().(*[bounceSize]byte)
	defer bounceBuffers.Put(buf)
	n, err := lzo.Decompress(buf[:sector], in)
	return copy(out, buf[:n]), err
}

// startZstd makes the decoder when it is needed first. It takes no memory for
// what a frame claims: the output is that of the caller.
var startZstd = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(0), // as many at a time as there are processors
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxCompressed),
		zstd.WithDecodeAllCapLimit(true),
	)
})

// decodeZstd decodes one frame. What follows it is padding.
func decodeZstd(out, in []byte, _ int) (int, error) {
	decoder, err := startZstd()
	if err != nil {
		return 0, err
	}
	frame, err := zstdFrame(in)
	if err != nil {
		return 0, err
	}
	data, err := decoder.DecodeAll(frame, out[:0])
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) && len(out) < maxCompressed {
		// It was cut when it was compressed already.
		data, err = decoder.DecodeAll(frame, make([]byte, 0, maxCompressed))
		return copy(out, data), err
	}
	return len(data), err
}

// zstdFrame returns the first frame of in.
//
// Layout (RFC 8878, 3.1.1): a header; blocks behind 3 bytes each, whose bits are
// 1 last, 2 type (1: one byte repeated), 21 size; a checksum of 4 bytes.
func zstdFrame(in []byte) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(in); err != nil {
		return nil, err
	}
	if h.Skippable {
		return nil, errors.New("a frame without content")
	}
	for at := h.HeaderSize; at <= len(in)-3; {
		block := uint32(in[at]) | uint32(in[at+1])<<8 | uint32(in[at+2])<<16
		size := int(block >> 3)
		if block>>1&3 == 1 {
			size = 1
		}
		at += 3 + size
		if block&1 != 0 {
			if h.HasCheckSum {
				at += 4
			}
			if at > len(in) {
				break
			}
			return in[:at], nil
		}
	}
	return nil, io.ErrUnexpectedEOF
}
