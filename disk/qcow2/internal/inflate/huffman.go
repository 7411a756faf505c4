package inflate

import (
	"errors"
	"math/bits"
)

// The alphabets of deflate (RFC 1951, section 3.2.5 and 3.2.7).
const (
	maxLiterals  = 288 // 256 bytes, the end of a block, lengths; two are not used
	maxDistances = 32  // two are not used
	maxCode      = 15  // bits
	endOfBlock   = 256

	usedLiterals  = 286
	usedDistances = 30
)

var (
	errLengths = errors.New("code lengths that make no code")
	errNoEnd   = errors.New("a block that cannot end")
	errSymbols = errors.New("more symbols than there are")
	errRepeat  = errors.New("a repetition of code lengths that there are not")
)

// entry is what a table says of a code. 0 is no code.
//
//	bits 0 to 3    length of the code; of isLink that of the indices that follow
//	bits 4 to 7    number of extra bits
//	bits 8 to 23   the byte, the base that extra bits add to, or where the
//	               second table of isLink begins
//	bits 29 to 31  the flags below
type entry uint32

const (
	isLiteral entry = 1 << 31
	isEnd     entry = 1 << 30
	isLink    entry = 1 << 29

	extraShift = 4
	valueShift = 8
	valueMask  = 0xffff
)

// A table is indexed by the next bits, and holds codes that are longer than that
// in second tables behind it. Each of those has at least two codes, and at most
// one for each value of the bits that are left.
const (
	literalBits  = 10
	distanceBits = 8

	literalEntries  = 1<<literalBits + maxLiterals/2<<(maxCode-literalBits)
	distanceEntries = 1<<distanceBits + maxDistances/2<<(maxCode-distanceBits)
)

type (
	literalTable  [literalEntries]entry
	distanceTable [distanceEntries]entry
)

func (t *literalTable) find(b uint64) entry {
	e := t[b&(1<<literalBits-1)]
	if e&isLink != 0 {
		e = t[uint64(e>>valueShift&valueMask)+b>>literalBits&(1<<(e&15)-1)]
	}
	return e
}

func (t *distanceTable) find(b uint64) entry {
	e := t[b&(1<<distanceBits-1)]
	if e&isLink != 0 {
		e = t[uint64(e>>valueShift&valueMask)+b>>distanceBits&(1<<(e&15)-1)]
	}
	return e
}

// build fills table, whose first 1<<width entries are indexed by the next bits,
// with the codes of these lengths. meaning says what each symbol is.
func build(table []entry, width int, lengths []uint8, meaning []entry) error {
	var count, next [maxCode + 1]int
	for _, l := range lengths {
		count[l]++
	}
	count[0] = 0
	code, longest, symbols := 0, 0, 0
	var first [maxCode + 1]int // index in order
	for l := 1; l <= maxCode; l++ {
		code <<= 1
		next[l], first[l] = code, symbols
		code += count[l]
		symbols += count[l]
		if count[l] > 0 {
			longest = l
		}
		if code > 1<<l {
			return errLengths
		}
	}
	// A code that is not complete is allowed if it is empty, or one bit.
	if code != 1<<maxCode {
		if longest > 1 {
			return errLengths
		}
		clear(table[:1<<width])
	}
	var order [maxLiterals]uint16 // symbols by their codes
	for s, l := range lengths {
		if l > 0 {
			order[first[l]] = uint16(s)
			first[l]++
		}
	}
	fill(table, width, longest, order[:symbols], lengths, meaning, next)
	return nil
}

// fill is build, with the symbols in the order of their codes, of which next has
// the first of each length.
func fill(table []entry, width, longest int, order []uint16, lengths []uint8, meaning []entry, next [maxCode + 1]int) {
	end, prefix, second := 1<<width, -1, []entry(nil)
	for _, s := range order {
		l := int(lengths[s])
		reversed := int(bits.Reverse16(uint16(next[l])) >> (16 - l))
		next[l]++
		e := meaning[s]
		if e != 0 {
			e |= entry(l)
		}
		if l <= width {
			for i := reversed; i < 1<<width; i += 1 << l {
				table[i] = e
			}
			continue
		}
		if p := reversed & (1<<width - 1); p != prefix {
			prefix = p
			table[p] = isLink | entry(end)<<valueShift | entry(longest-width)
			second = table[end : end+1<<(longest-width)]
			end += len(second)
		}
		for i := reversed >> width; i < len(second); i += 1 << (l - width) {
			second[i] = e
		}
	}
}

// literalMeaning and distanceMeaning are what the symbols stand for.
var (
	literalMeaning  = makeLiteralMeaning()
	distanceMeaning = makeDistanceMeaning()
)

func makeLiteralMeaning() (m [maxLiterals]entry) {
	for i := range 256 {
		m[i] = isLiteral | entry(i)<<valueShift
	}
	m[endOfBlock] = isEnd
	base := 3
	for i := range 28 { // in fours with one more extra bit, but the first eight
		extra := max(0, i/4-1)
		m[257+i] = entry(base)<<valueShift | entry(extra)<<extraShift
		base += 1 << extra
	}
	m[285] = maxMatch << valueShift
	return m
}

func makeDistanceMeaning() (m [maxDistances]entry) {
	base := 1
	for i := range usedDistances {
		extra := max(0, i/2-1)
		m[i] = entry(base)<<valueShift | entry(extra)<<extraShift
		base += 1 << extra
	}
	return m
}

// fixedTables are those of blocks that bring none.
var fixedLiterals, fixedDistances = makeFixedTables()

func makeFixedTables() (l literalTable, d distanceTable) {
	var lengths [maxLiterals + maxDistances]uint8
	for i := range lengths {
		switch {
		case i < 144, i >= 280 && i < maxLiterals:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 5
		}
	}
	// These lengths make codes.
	_ = build(l[:], literalBits, lengths[:maxLiterals], literalMeaning[:])
	_ = build(d[:], distanceBits, lengths[maxLiterals:], distanceMeaning[:])
	return l, d
}

func (d *Decoder) fixed() { d.literals, d.distances = &fixedLiterals, &fixedDistances }

// lengthOrder is the order in which the lengths of the codes of code lengths come.
var lengthOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamic reads the tables of a block (RFC 1951, section 3.2.7).
func (d *Decoder) dynamic() error {
	d.literals, d.distances = &d.ownLiterals, &d.ownDistances
	counts, err := d.take(14)
	if err != nil {
		return err
	}
	literals, distances, codes := counts&31+257, counts>>5&31+1, counts>>10+4
	if literals > usedLiterals || distances > usedDistances {
		return errSymbols
	}
	var lengths [19]uint8
	for _, s := range lengthOrder[:codes] {
		l, err := d.take(3)
		if err != nil {
			return err
		}
		lengths[s] = uint8(l)
	}
	// The table of distances serves for that of code lengths in between.
	if err := build(d.distances[:], distanceBits, lengths[:], lengthMeaning[:]); err != nil {
		return err
	}
	all := d.lengths[:literals+distances]
	if err := d.readLengths(all); err != nil {
		return err
	}
	if all[endOfBlock] == 0 {
		return errNoEnd
	}
	if err := build(d.literals[:], literalBits, all[:literals], literalMeaning[:]); err != nil {
		return err
	}
	return build(d.distances[:], distanceBits, all[literals:], distanceMeaning[:])
}

// lengthMeaning marks a code length as a literal; the others are repetitions, of
// so many at least.
var lengthMeaning = func() (m [19]entry) {
	for i := range 16 {
		m[i] = isLiteral | entry(i)<<valueShift
	}
	m[16] = isEnd | 3<<valueShift | 2<<extraShift // of the length before
	m[17] = 3<<valueShift | 3<<extraShift         // of 0
	m[18] = 11<<valueShift | 7<<extraShift        // of 0
	return m
}()

func (d *Decoder) readLengths(all []uint8) error {
	for i := 0; i < len(all); {
		e, err := d.symbol(d.distances.find)
		if err != nil {
			return err
		}
		if e&isLiteral != 0 {
			all[i] = uint8(e >> valueShift)
			i++
			continue
		}
		extra, err := d.take(uint(e >> extraShift & 15))
		if err != nil {
			return err
		}
		n := int(e>>valueShift&valueMask) + int(extra)
		length := uint8(0)
		if e&isEnd != 0 {
			if i == 0 {
				return errRepeat
			}
			length = all[i-1]
		}
		if n > len(all)-i {
			return errRepeat
		}
		for range n {
			all[i] = length
			i++
		}
	}
	return nil
}
