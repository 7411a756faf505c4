package ondisk

import (
	"cmp"
	"slices"
)

// maxPieces bounds what [Pieces] keeps, at 16 bytes each: a directory in blocks
// of 4 KiB has 4 GiB then, in the worst case.
const maxPieces = 1 << 20

// Pieces are the blocks that something lies in, for finding out whether one is
// there twice: a small disk would have endless content.
type Pieces struct {
	list []piece
}

type piece struct{ first, end uint64 } // the blocks [first, end)

// Add notes count blocks from block on. It returns false where there are too many
// pieces to tell.
func (p *Pieces) Add(block, count uint64) bool {
	if n := len(p.list); n > 0 && p.list[n-1].end == block {
		p.list[n-1].end += count
		return true
	}
	if len(p.list) == maxPieces {
		return false
	}
	p.list = append(p.list, piece{block, block + count})
	return true
}

// Twice returns the first block that was noted twice, if there is any. Nothing can
// be added then.
func (p *Pieces) Twice() (block uint64, found bool) {
	slices.SortFunc(p.list, func(a, b piece) int { return cmp.Compare(a.first, b.first) })
	for i := 1; i < len(p.list); i++ {
		if p.list[i].first < p.list[i-1].end {
			return p.list[i].first, true
		}
	}
	return 0, false
}
