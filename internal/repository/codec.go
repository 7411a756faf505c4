package repository

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// The limits of what is taken from a repository.
const (
	// maxBlobSize bounds a blob, compressed or not: restic's chunks have 8 MiB
	// or less, and a tree needs some 400 bytes for each entry of a folder, so
	// this is a folder of more than a million entries.
	maxBlobSize = 512 << 20
	// maxUnpackedSize bounds the plaintext of an index, snapshot or lock file.
	// Restic closes an index at about 8 MiB, after the pack that filled it:
	// one full of tiny blobs adds up to 60 MiB.
	maxUnpackedSize = 256 << 20
	// zstdWindow is restic's: nothing to find in 8 MiB is much further back,
	// and memory is bounded by it.
	zstdWindow = 512 << 10
)

// largeFile is the size in bytes above which a compressed index is decompressed as it is
// parsed.
const largeFile = 512 << 10

// The first byte of the plaintext of unpacked files in format 2. An opening
// bracket instead is JSON as it stands.
const encodingZstd = 2

// codec turns plaintext into what is stored and back. It is safe for concurrent
// use.
type codec struct {
	key         *crypto.Key
	compress    bool // format 2
	compression Compression
	options     []zstd.EOption // of enc
	enc         *zstd.Encoder
	dec         *zstd.Decoder
	scratch     sync.Pool // of *[]byte, to compress and seal in
}

// levels are those that restic has for its compressions.
var levels = map[Compression]zstd.EncoderLevel{
	CompressionOff:     zstd.SpeedFastest, // of trees and indexes
	CompressionFastest: zstd.SpeedFastest,
	CompressionAuto:    zstd.SpeedDefault,
	CompressionBetter:  zstd.SpeedBetterCompression,
	CompressionMax:     zstd.SpeedBestCompression,
}

// newCodec returns the codec of a repository with that key.
func newCodec(key *crypto.Key, version int, compression Compression) (*codec, error) {
	options := []zstd.EOption{
		zstd.WithEncoderLevel(levels[compression]), zstd.WithEncoderCRC(false), zstd.WithWindowSize(zstdWindow),
		// Base64, samples and the like repeat nothing, and are a quarter smaller all
		// the same.
		zstd.WithAllLitEntropyCompression(true),
	}
	enc, err := zstd.NewWriter(nil, options...)
	if err != nil {
		return nil, fmt.Errorf("make compressor: %w", err)
	}
	dec, err := newDecoder()
	if err != nil {
		return nil, err
	}
	return &codec{key: key, compress: version >= formatCompressed, compression: compression, options: options, enc: enc, dec: dec}, nil
}

func newDecoder() (*zstd.Decoder, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxBlobSize))
	if err != nil {
		return nil, fmt.Errorf("make decompressor: %w", err)
	}
	return dec, nil
}

// buffer returns an empty scratch buffer, to be given back with release.
func (c *codec) buffer() *[]byte {
	if b, ok := c.scratch.Get().(*[]byte); ok {
		return b
	}
	return new([]byte)
}

func (c *codec) release(b *[]byte) {
	*b = (*b)[:0]
	c.scratch.Put(b)
}

// sealBlob appends the stored form of a blob to buf, which is empty, and says
// whether it is compressed. What compression does not make smaller is stored as
// it is, as format 2 allows.
func (c *codec) sealBlob(buf []byte, t BlobType, data []byte) (sealed []byte, compressed bool) {
	buf = append(buf, make([]byte, crypto.NonceSize)...)
	if c.compress && len(data) > 0 && (t == TreeBlob || c.compression != CompressionOff) {
		buf = c.enc.EncodeAll(data, buf)
		compressed = len(buf)-crypto.NonceSize < len(data)
	}
	if !compressed {
		buf = append(buf[:crypto.NonceSize], data...)
	}
	return c.key.SealInPlace(buf, 0), compressed
}

// sealTree does what sealBlob does for a tree that is not whole in memory. It is
// compressed twice, to know its size before it takes memory: that of a disk of 15 TiB is
// from a few KiB to 70 MB.
func (c *codec) sealTree(t *Tree) (sealed []byte, compressed bool, err error) {
	size := t.Size()
	if c.compress {
		var n counter
		if err := c.compressTree(&n, t); err != nil {
			return nil, false, err
		}
		if compressed = int(n) < size; compressed {
			size = int(n)
		}
	}
	const slack = 4 << 10 // for the nonce, the tag and the header of a pack
	out := bytes.NewBuffer(make([]byte, crypto.NonceSize, size+slack))
	if compressed {
		err = c.compressTree(out, t)
	} else {
		_, err = t.writeTo(out)
	}
	if err != nil {
		return nil, false, err
	}
	return c.key.SealInPlace(out.Bytes(), 0), compressed, nil
}

// compressTree writes the compressed form of a tree.
func (c *codec) compressTree(w io.Writer, t *Tree) error {
	enc, err := zstd.NewWriter(nil, append(slices.Clip(c.options), zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		return fmt.Errorf("make compressor: %w", err)
	}
	enc.ResetContentSize(w, int64(t.Size()))
	_, err = t.writeTo(enc)
	if err := errors.Join(err, enc.Close()); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	return nil
}

// counter counts what is written to it.
type counter int64

func (n *counter) Write(p []byte) (int, error) {
	*n += counter(len(p))
	return len(p), nil
}

// openBlob decrypts sealed in place, and decompresses it into dst if the content
// is said to be size bytes compressed. It checks the hash.
func (c *codec) openBlob(dst, sealed []byte, e blobEntry) ([]byte, error) {
	plain, err := c.key.Open(sealed)
	if err != nil {
		return nil, err
	}
	if e.compressed() {
		if cap(dst) < int(e.size) { // which the index bounded
			dst = make([]byte, 0, e.size)
		}
		if plain, err = c.dec.DecodeAll(plain, dst[:0]); err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
	} else {
		plain = append(dst[:0], plain...)
	}
	if Hash(plain) != e.id {
		return nil, errHash
	}
	return plain, nil
}

// errHash is of a blob that is not what it is called by.
var errHash = errors.New("the content has another hash")

// sealFile returns the stored form of an index, snapshot or lock file.
func (c *codec) sealFile(plain []byte) []byte {
	buf := make([]byte, crypto.NonceSize, crypto.Overhead+len(plain)/2)
	if c.compress {
		buf = c.enc.EncodeAll(plain, append(buf, encodingZstd))
	} else {
		buf = append(buf, plain...)
	}
	return c.key.SealInPlace(buf, 0)
}

// openFile decrypts the stored form of such a file in place.
func (c *codec) openFile(sealed []byte) ([]byte, error) {
	plain, err := c.key.Open(sealed)
	if err != nil || !c.compress {
		return plain, err
	}
	return decodeFile(c.dec, plain)
}

// openStream decrypts the stored form of such a file in place, and returns a reader of the
// plaintext. An index of a hundred thousand tiny blobs has 20 MB and more.
func (c *codec) openStream(sealed []byte) (io.Reader, error) {
	plain, err := c.key.Open(sealed)
	if err != nil {
		return nil, err
	}
	if !c.compress || len(plain) < largeFile || plain[0] != encodingZstd {
		if c.compress {
			plain, err = decodeFile(c.dec, plain)
		}
		return bytes.NewReader(plain), err
	}
	dec, err := newStream(plain[1:])
	return &boundedReader{rd: dec, left: maxUnpackedSize}, err
}

// newStream returns a decompressor that holds no more than a window, which a hostile
// stream may make as large as a blob can be.
func newStream(packed []byte) (*zstd.Decoder, error) {
	dec, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlobSize))
	if err != nil {
		return nil, fmt.Errorf("make decompressor: %w", err)
	}
	return dec, nil
}

// boundedReader reads a file of at most left bytes.
type boundedReader struct {
	rd   io.Reader
	left int
}

func (r *boundedReader) Read(p []byte) (int, error) {
	n, err := r.rd.Read(p)
	if r.left -= n; r.left < 0 {
		return 0, fmt.Errorf("%w: more than %d bytes", ErrLimit, maxUnpackedSize)
	}
	return n, err
}

// decodeFile undoes the encoding that format 2 knows for such files.
func decodeFile(dec *zstd.Decoder, plain []byte) ([]byte, error) {
	if len(plain) == 0 {
		return nil, errors.New("the file is empty")
	}
	switch plain[0] {
	case '{', '[':
		return plain, nil
	case encodingZstd:
		out, err := dec.DecodeAll(plain[1:], nil)
		if err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
		if len(out) > maxUnpackedSize {
			return nil, fmt.Errorf("%w: %d bytes, and the limit is %d", ErrLimit, len(out), maxUnpackedSize)
		}
		return out, nil
	}
	return nil, fmt.Errorf("%w: encoding %d", ErrFormat, plain[0])
}
