package inflate

import (
	mathbits "math/bits"
	"sync"
)

// The numbers of RFC 1951.
const (
	maxCodeLength  = 15
	maxMatch       = 258
	endOfBlock     = 256
	literalSymbols = 286 // of 288, the last two are never used
	distances      = 30  // of 32, likewise
	maxSymbols     = 288 + 32
)

// A table turns the next bits of the input into an entry. Codes longer than its primary
// bits lead to a subtable behind the primary part.
const (
	literalBits  = 11
	literalMask  = 1<<literalBits - 1
	distanceBits = 8
	distanceMask = 1<<distanceBits - 1
	codeBits     = 7 // of the code that the code lengths are in
)

// The tables have room for the primary part and for the subtables of any code: zlib's
// examples/enough.c counts at most 2342 entries for 288 symbols and 11 bits, and 402
// for 32 symbols and 8 bits. Their sizes are powers of two, so that a mask keeps an
// index inside.
type (
	literalTable  [4096]uint32
	distanceTable [512]uint32
	codeTable     [1 << codeBits]uint32
)

// An entry:
//
//	bits 0 to 5     length of the code in bits, all of it
//	bits 8 to 11    how many bits follow the code; of a subtable, how many choose in it
//	bits 12 to 15   what it is, below; none of them: a length or a distance
//	bits 16 to 31   the literal, the base of the length or the distance, or where in the
//	                table the subtable starts
const (
	lengthMask = 0x3f // what a processor takes of the distance of a shift
	extraMask  = 0xf

	isEnd      = 1 << 12
	isInvalid  = 1 << 13
	isSubtable = 1 << 14
	isLiteral  = 1 << 15
)

// codeSymbols are the entries of the symbols of the code that the code lengths are in.
var codeSymbols = func() (symbols [19]uint32) {
	for i := range symbols {
		symbols[i] = uint32(i) << 16
	}
	return symbols
}()

// literalEntries are the entries of the symbols of a literal and length code (RFC 1951,
// 3.2.5), but for the lengths of their codes.
var literalEntries = func() (entries [288]uint32) {
	for i := range 256 {
		entries[i] = uint32(i)<<16 | isLiteral
	}
	entries[endOfBlock] = isEnd
	base := uint32(3)
	for i := uint32(0); i < 28; i++ {
		extra := uint32(0)
		if i >= 8 {
			extra = i/4 - 1
		}
		entries[257+i] = base<<16 | extra<<8
		base += 1 << extra
	}
	entries[285] = maxMatch << 16
	entries[286], entries[287] = isInvalid, isInvalid
	return entries
}()

// distanceEntries are those of a distance code.
var distanceEntries = func() (entries [32]uint32) {
	base := uint32(1)
	for i := uint32(0); i < distances; i++ {
		extra := uint32(0)
		if i >= 4 {
			extra = i/2 - 1
		}
		entries[i] = base<<16 | extra<<8
		base += 1 << extra
	}
	entries[30], entries[31] = isInvalid, isInvalid
	return entries
}()

// fixedTables are those of blocks of the fixed type (RFC 1951, 3.2.6).
var fixedTables = sync.OnceValue(func() *struct {
	literals  literalTable
	distances distanceTable
} {
	tables := new(struct {
		literals  literalTable
		distances distanceTable
	})
	var lengths [288]uint8
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	build(tables.literals[:], literalBits, lengths[:], literalEntries[:])
	for i := range 32 {
		lengths[i] = 5
	}
	build(tables.distances[:], distanceBits, lengths[:32], distanceEntries[:])
	return tables
})

// codeOrder is the order in which the lengths of the code of code lengths are stored.
var codeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// readTables reads the codes that a block of the dynamic type starts with (RFC 1951,
// 3.2.7).
func (d *decoder) readTables() error {
	// 5 bits: literal and length codes - 257; 5: distance codes - 1; 4: code length
	// codes - 4.
	head, err := d.in.take(14)
	if err != nil {
		return err
	}
	nliterals, ndistances, ncodes := int(head&31)+257, int(head>>5&31)+1, int(head>>10)+4
	if nliterals > literalSymbols || ndistances > distances {
		return ErrCorrupt
	}
	var lengths [19]uint8
	for _, symbol := range codeOrder[:ncodes] {
		length, err := d.in.take(3)
		if err != nil {
			return err
		}
		lengths[symbol] = uint8(length)
	}
	var codes codeTable
	if kind := build(codes[:], codeBits, lengths[:], codeSymbols[:]); kind != complete {
		return ErrCorrupt
	}
	all := d.lengths[:nliterals+ndistances]
	if err := d.readLengths(all, &codes); err != nil {
		return err
	}
	if all[endOfBlock] == 0 {
		return ErrCorrupt // the block would never end
	}
	if build(d.literals[:], literalBits, all[:nliterals], literalEntries[:]) == impossible ||
		build(d.distances[:], distanceBits, all[nliterals:], distanceEntries[:]) == impossible {
		return ErrCorrupt
	}
	return nil
}

// readLengths reads the lengths of the codes of a block.
func (d *decoder) readLengths(all []uint8, codes *codeTable) error {
	for i := 0; i < len(all); {
		e, err := d.in.symbol(codes[:], codeBits)
		if err != nil {
			return err
		}
		symbol := e >> 16
		if symbol < 16 {
			all[i] = uint8(symbol)
			i++
			continue
		}
		// 16: the last length again, 3 to 6 times; 17: zeros, 3 to 10; 18: zeros, 11
		// to 138.
		length, least, extra := uint8(0), 3, uint(3)
		switch symbol {
		case 16:
			if i == 0 {
				return ErrCorrupt
			}
			length, extra = all[i-1], 2
		case 18:
			least, extra = 11, 7
		}
		more, err := d.in.take(extra)
		if err != nil {
			return err
		}
		times := least + int(more)
		if times > len(all)-i {
			return ErrCorrupt
		}
		for end := i + times; i < end; i++ {
			all[i] = length
		}
	}
	return nil
}

// What build has to say of a code.
const (
	complete = iota
	// degenerate: no code at all, or one of one bit, as zlib allows them.
	degenerate
	impossible
)

// build fills a table for a code of which the symbols' lengths are given, 0 for those
// that have no code. Codes are in the order of length and symbol.
func build(table []uint32, primary uint, lengths []uint8, entries []uint32) int {
	var count [maxCodeLength + 1]int
	for _, length := range lengths {
		count[length]++
	}
	count[0] = 0
	var (
		next [maxCodeLength + 1]uint32 // the next code of each length
		left = 1                       // codes of this length that are free
		used = 0
	)
	for length := 1; length <= maxCodeLength; length++ {
		next[length] = (next[length-1] + uint32(count[length-1])) << 1
		if left = left<<1 - count[length]; left < 0 {
			return impossible
		}
		used += count[length]
	}
	kind := complete
	if left > 0 {
		if used > 1 || used == 1 && count[1] == 0 {
			return impossible
		}
		kind = degenerate
		for i := range table[:1<<primary] {
			table[i] = isInvalid
		}
	}
	start := next
	var depth [1 << literalBits]uint8 // of the subtable at each entry of the primary part
	long := false
	for symbol, length := range lengths {
		if length == 0 {
			continue
		}
		code := reversed(next[length], length)
		next[length]++
		if uint(length) > primary {
			at := code & (1<<primary - 1)
			depth[at] = max(depth[at], length-uint8(primary))
			long = true
			continue
		}
		for i := code; i < 1<<primary; i += 1 << length {
			table[i] = entries[symbol] | uint32(length)
		}
	}
	if long {
		subtables(table, primary, lengths, entries, start, &depth)
	}
	return kind
}

// subtables fills those for the codes that are longer than the primary bits.
func subtables(table []uint32, primary uint, lengths []uint8, entries []uint32, next [maxCodeLength + 1]uint32, depth *[1 << literalBits]uint8) {
	free := uint32(1) << primary // where the next one goes
	var begun [1 << literalBits]bool
	for symbol, length := range lengths {
		if uint(length) <= primary {
			continue
		}
		code := reversed(next[length], length)
		next[length]++
		at := code & (1<<primary - 1)
		if !begun[at] {
			begun[at] = true
			table[at] = free<<16 | uint32(depth[at])<<8 | isSubtable
			free += 1 << depth[at]
		}
		first := table[at] >> 16
		for i := code >> primary; i < 1<<depth[at]; i += 1 << (uint(length) - primary) {
			table[first+i] = entries[symbol] | uint32(length)
		}
	}
}

// reversed returns a code of that many bits with its first bit lowest, as the input
// has it.
func reversed(code uint32, length uint8) uint32 {
	return uint32(mathbits.Reverse16(uint16(code)) >> (16 - length))
}
