package qcow2

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/drydock-vm/drydock/disk/internal/inflate"
)

// maxZstdWindow is the largest window, in bytes, that a zstd frame may ask for:
// what the zstd format recommends every decoder to support. QEMU's frames ask
// for a cluster at most, and no memory is taken for it here.
const maxZstdWindow = 8 << 20

var errShort = errors.New("the data ends before the cluster is full")

// decompressor turns compressed clusters into clusters. It is safe for
// concurrent use. What follows the compressed data in its input is not its own:
// the rest of a sector, and often the start of the next compressed cluster.
type decompressor struct {
	decode func(cluster, in []byte) error
	inputs *sync.Pool // of *[]byte
}

func newDecompressor(c compression) (decompressor, error) {
	d := decompressor{inputs: &sync.Pool{New: func() any { return new([]byte) }}}
	if c == compressionZlib {
		d.decode = inflateCluster
		return d, nil
	}
	decode, err := newUnzstd()
	d.decode = decode
	return d, err
}

// decompress fills cluster from in, to the last byte, or fails.
func (d *decompressor) decompress(cluster, in []byte) error { return d.decode(cluster, in) }

// input returns a buffer of n bytes, to be given back with release. n is at most
// maxFetch, or two clusters and a sector, by the width of its field in an L2 entry.
func (d *decompressor) input(n int) *[]byte {
	buf := d.inputs.Get().(*[]byte)
	if cap(*buf) < n {
		*buf = make([]byte, n)
	}
	*buf = (*buf)[:n]
	return buf
}

func (d *decompressor) release(buf *[]byte) { d.inputs.Put(buf) }

// inflateCluster decodes raw deflate, which the format calls zlib, and fills cluster.
// As QEMU does, it asks that the cluster be filled, and not that the stream end there;
// but what the stream goes on with must be possible, because that is what tells damage
// in the last bytes.
func inflateCluster(cluster, in []byte) error {
	n, _, err := inflate.Decode(cluster, in)
	switch {
	case errors.Is(err, inflate.ErrCorrupt):
		return err
	case n < len(cluster):
		return errShort
	}
	return nil
}

// newUnzstd decodes zstd frames until the cluster is full. The last frame must
// end exactly there, as QEMU asks.
func newUnzstd() (func(cluster, in []byte) error, error) {
	dec, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(0), // as many at a time as there are processors
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxZstdWindow),
		zstd.WithDecodeAllCapLimit(true), // a frame cannot outgrow the cluster
	)
	if err != nil {
		return nil, fmt.Errorf("starting the zstd decoder: %w", err)
	}
	return func(cluster, in []byte) error {
		// Only whole frames, and one at a time: the decoder would go on into
		// the padding and what comes after it.
		for done := 0; done < len(cluster); {
			n, err := zstdFrame(in)
			if err != nil {
				return err
			}
			out, err := dec.DecodeAll(in[:n], cluster[:done:len(cluster)])
			if err != nil {
				return err
			}
			if len(out) > 0 && &out[0] != &cluster[0] {
				copy(cluster[done:], out[done:])
			}
			done, in = len(out), in[n:]
		}
		return nil
	}, nil
}

// The block types of a zstd frame (RFC 8878, section 3.1.1.2).
const (
	zstdRaw = iota
	zstdRLE
	zstdCompressed
)

// zstdFrame returns the length in bytes of the zstd frame that in starts with.
func zstdFrame(in []byte) (int, error) {
	var h zstd.Header
	if err := h.Decode(in); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, errShort
		}
		return 0, err
	}
	if h.Skippable {
		return 0, errors.New("there is a skippable frame in place of data")
	}
	n := h.HeaderSize
	for last := false; !last; {
		// Block header, 3 bytes, little-endian: bit 0 last block, bits 1 to 2
		// type, the rest size.
		if len(in)-n < 3 {
			return 0, errShort
		}
		block := uint32(in[n]) | uint32(in[n+1])<<8 | uint32(in[n+2])<<16
		last = block&1 != 0
		size := int(block >> 3)
		switch block >> 1 & 3 {
		case zstdRaw, zstdCompressed:
		case zstdRLE:
			size = 1
		default:
			return 0, errors.New("there is a block of a reserved type")
		}
		n += 3
		if len(in)-n < size {
			return 0, errShort
		}
		n += size
	}
	if h.HasCheckSum {
		n += 4
	}
	if n > len(in) {
		return 0, errShort
	}
	return n, nil
}
