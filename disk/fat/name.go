package fat

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	maxNameSize = 255 // bytes, of package disk

	maxLongParts  = 20 // 255 characters of UTF-16, and an end
	longPartUnits = 13
	lastLongPart  = 0x40
	maxUTF8Unit   = 3 // bytes of UTF-8 for a unit of UTF-16
)

// longName collects the parts of a long name, which stand before the short one,
// the last part first.
//
// Layout of a part (FAT File System Specification, "Long Directory Entries"):
//
//	0x00  1 number, from 1 on; of the last part 0x40 more
//	0x01 10 characters 1 to 5, UTF-16, little endian
//	0x0B  1 attributes, 0x0F
//	0x0D  1 checksum of the short name
//	0x0E 12 characters 6 to 11
//	0x1C  4 characters 12 and 13
type longName struct {
	units    [maxLongParts * longPartUnits]uint16
	parts    int // altogether
	next     int // number of the part that was read last; 0 where there is none
	complete bool
	checksum uint8
}

// reset forgets what was collected.
func (l *longName) reset() { l.next, l.complete = 0, false }

// add takes a part. One out of order makes the name none.
func (l *longName) add(raw []byte) {
	number, checksum := int(raw[0]), raw[0x0d]
	switch {
	case number&lastLongPart != 0:
		number &^= lastLongPart
		l.parts, l.checksum = number, checksum
	case number != l.next-1 || checksum != l.checksum:
		number = 0
	}
	if number < 1 || number > maxLongParts {
		l.reset()
		return
	}
	l.next, l.complete = number, number == 1
	part := l.units[(number-1)*longPartUnits:][:longPartUnits]
	for i := range part {
		part[i] = binary.LittleEndian.Uint16(raw[unitOffset(i):])
	}
}

// unitOffset is where in a part character i lies.
func unitOffset(i int) int {
	switch {
	case i < 5:
		return 0x01 + 2*i
	case i < 11:
		return 0x0e + 2*(i-5)
	}
	return 0x1c + 2*(i-11)
}

// appendTo appends the name, if it is one that belongs to short, to buf.
func (l *longName) appendTo(buf, short []byte) []byte {
	if !l.complete || l.checksum != shortChecksum(short) {
		return buf
	}
	units := l.units[:l.parts*longPartUnits]
	for i := 0; i < len(units) && units[i] != 0; i++ {
		r := rune(units[i])
		if i+1 < len(units) {
			if pair := utf16.DecodeRune(r, rune(units[i+1])); pair != unicode.ReplacementChar {
				r = pair
				i++
			}
		}
		buf = appendRune(buf, r)
	}
	return buf
}

// appendRune appends r as UTF-8. So that names that differ stay different,
// unpaired surrogates are not replaced.
func appendRune(buf []byte, r rune) []byte {
	if utf16.IsSurrogate(r) {
		return append(buf, 0xe0|byte(r>>12), 0x80|byte(r>>6&0x3f), 0x80|byte(r&0x3f))
	}
	return utf8.AppendRune(buf, r)
}

// shortChecksum is that which the parts of a long name carry.
func shortChecksum(short []byte) (sum uint8) {
	for _, c := range short {
		sum = (sum>>1 | sum<<7) + c
	}
	return sum
}

// codePage437 is the upper half of the code page of short names.
const codePage437 = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐" +
	"└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0"

var fromCodePage437 = []rune(codePage437)

// appendShort appends the name of an entry, as Linux shows it, to buf.
func (e *entry) appendShort(buf []byte) []byte {
	base, extension := bytes.TrimRight(e.name[:8], " "), bytes.TrimRight(e.name[8:], " ")
	for i, c := range base {
		if i == 0 && c == nameE5 {
			c = nameDeleted
		}
		buf = appendOEM(buf, c, e.windows&lowerBase != 0)
	}
	if len(extension) > 0 {
		buf = append(buf, '.')
	}
	for _, c := range extension {
		buf = appendOEM(buf, c, e.windows&lowerExtension != 0)
	}
	return buf
}

func appendOEM(buf []byte, c byte, lower bool) []byte {
	r := rune(c)
	if c >= 0x80 {
		r = fromCodePage437[c-0x80]
	}
	if lower {
		if l := unicode.ToLower(r); l < 0x80 || strings.ContainsRune(codePage437, l) {
			r = l
		}
	}
	return utf8.AppendRune(buf, r)
}

// checkName returns what is wrong with a name, or "".
func checkName(name []byte) string {
	switch {
	case len(name) == 0:
		return "it has no name"
	case len(name) > maxNameSize:
		return "its name is too long"
	case string(name) == "." || string(name) == "..":
		return "its name is that of the directory or of the one above"
	}
	for _, c := range name {
		if c == '/' || c < ' ' {
			return "its name has characters that no name has"
		}
	}
	return ""
}
