package ecc

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/klauspost/reedsolomon"
)

// Parity is that of one pack, as it was read.
type Parity struct {
	Sum    [sha256.Size]byte // of the pack: its name
	Length int64             // of the pack, in bytes
	layout layout
	raw    []byte
}

// Parse reads parity of a pack of at most limit bytes. Damage that leaves one of
// the headers and one of the lists of checksums is none here. Raw is kept.
func Parse(raw []byte, limit int64) (*Parity, error) {
	l, sum, err := parseHeader(raw, limit)
	if err != nil {
		// The other one may be whole. If it is not, what is wrong with the
		// first says more.
		var lerr error
		l, sum, lerr = parseHeader(raw[max(0, len(raw)-headerSize):], limit)
		if lerr != nil {
			return nil, err
		}
	}
	// A pack that is claimed to be large has checksums that are long.
	if int64(len(raw)) < l.parityStart() {
		return nil, fmt.Errorf("%w: it has %d bytes, and should have %d", ErrFormat, len(raw), l.size())
	}
	return &Parity{Sum: sum, Length: l.length, layout: l, raw: raw[:min(int64(len(raw)), l.size())]}, nil
}

// MaxSize is how long the parity of a pack of at most that many bytes is.
func MaxSize(length int64) int64 { return plan(max(length, 1), MaxPercent).size() }

// Repair returns the pack as it was, made of what is left of it. Damaged is not
// changed; it may be shorter or longer than the pack.
func (p *Parity) Repair(damaged []byte) ([]byte, error) {
	l := p.layout
	damaged = damaged[:min(int64(len(damaged)), l.length)]
	if gone := ceil(l.length-int64(len(damaged)), blockSize); gone > l.parityBlocks() {
		return nil, fmt.Errorf("%w: %d of %d bytes are there", ErrTooDamaged, len(damaged), l.length)
	}
	pack := append(make([]byte, 0, l.data*l.stripes*blockSize), damaged...)
	pack = pack[:cap(pack)]
	code, err := l.code()
	if err != nil {
		return nil, err
	}
	for s := range l.stripes {
		if err := p.repairStripe(code, pack, s); err != nil {
			return nil, err
		}
	}
	pack = pack[:l.length]
	if sha256.Sum256(pack) != p.Sum {
		return nil, fmt.Errorf("%w: what comes out has another hash", ErrTooDamaged)
	}
	return pack, nil
}

// repairStripe rebuilds in pack, which is filled up to whole rows with zeros, the
// blocks of one stripe that are damaged.
func (p *Parity) repairStripe(code reedsolomon.Encoder, pack []byte, stripe int64) error {
	l := p.layout
	shards := make([][]byte, 0, l.data+l.parity)
	lost := 0
	for r := range l.data {
		i := r*l.stripes + stripe
		b := block(pack, i)
		if !p.whole(i, block(pack[:l.length], i)) {
			b = b[:0] // rebuilt in place: it has the room
			lost++
		}
		shards = append(shards, b)
	}
	if lost == 0 {
		return nil
	}
	spare := int64(0)
	for r := range l.parity {
		i := r*l.stripes + stripe
		b := p.parityBlock(i)
		if len(b) < blockSize || !p.whole(l.blocks()+i, b) {
			b = nil
		} else {
			spare++
		}
		shards = append(shards, b)
	}
	if int64(lost) > spare {
		return fmt.Errorf("%w: stripe %d of %d has lost %d of %d blocks, and has %d good parity blocks",
			ErrTooDamaged, stripe+1, l.stripes, lost, l.data, spare)
	}
	if err := code.ReconstructData(shards); err != nil {
		return fmt.Errorf("rebuild stripe %d: %w", stripe+1, err)
	}
	return nil
}

// parityBlock returns a parity block, or as much of it as is there.
func (p *Parity) parityBlock(i int64) []byte {
	end := min(p.layout.sumsEnd(), int64(len(p.raw)))
	return block(p.raw[min(p.layout.parityStart(), end):end], i)
}

// whole reports whether block i, of the pack or after those a parity block, has
// one of the two checksums that are stored of it. Past the pack's end all blocks
// are zeros, which nobody stored.
func (p *Parity) whole(i int64, b []byte) bool {
	l := p.layout
	if len(b) == 0 {
		return true
	}
	sum := sumOf(b)
	for _, at := range []int64{headerSize + i*sumSize, l.sumsEnd() + i*sumSize} {
		if at+sumSize <= int64(len(p.raw)) && binary.LittleEndian.Uint32(p.raw[at:]) == sum {
			return true
		}
	}
	return false
}
