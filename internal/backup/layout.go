package backup

import (
	"bytes"
	"encoding/json"

	"github.com/drydock-vm/drydock/internal/repository"
)

const (
	// zeroPiece is what runs of zeros are counted in, in bytes.
	zeroPiece = 4 << 10
	// zeroRun is how many pieces of zeros make a file one that could be taken for
	// having a hole where it has none. A restore takes zeros for a hole from 32 KiB
	// on, which are 6 whole pieces or more wherever reads begin.
	zeroRun = 6
)

var zeros [zeroPiece]byte

// layout collects where a file's holes are.
type layout struct {
	holes []repository.Hole
	many  bool // too many holes to keep
	run   int  // pieces of zeros up to where data was called last
	runs  bool // whether there was a long run of zeros
}

// hole adds a hole, or more of the last one.
func (l *layout) hole(off, length int64) {
	if n := len(l.holes); n > 0 && l.holes[n-1].Offset+l.holes[n-1].Length == off {
		l.holes[n-1].Length += length
		return
	}
	if len(l.holes) == repository.MaxHoles {
		l.many = true
		return
	}
	l.holes = append(l.holes, repository.Hole{Offset: off, Length: length})
}

// data looks for runs of zeros in what was read.
func (l *layout) data(p []byte) {
	for len(p) > 0 && !l.runs {
		n := min(zeroPiece, len(p))
		if bytes.Equal(p[:n], zeros[:n]) {
			l.run++
		} else {
			l.run = 0
		}
		l.runs = l.run >= zeroRun
		p = p[n:]
	}
}

// record is what is kept of it: nothing where there is no doubt that all of the
// file is data.
func (l *layout) record() json.RawMessage {
	if l.many || len(l.holes) == 0 && !l.runs {
		return nil
	}
	return repository.EncodeHoles(l.holes)
}
