package iso9660

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// rawRecord makes the record of a file with a name of one byte, in one block of 2 KiB.
func rawRecord(name byte, block, size uint32, flags byte) []byte {
	p := make([]byte, minRecord)
	p[0], p[25], p[32], p[33] = minRecord, flags, 1, name
	copy(p[2:], both(block))
	copy(p[10:], both(size))
	return p
}

// TestParseRecord has the forms of a record, and what is none.
func TestParseRecord(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(p []byte) []byte
		text   string // what is wrong
		check  func(r record) bool
	}{
		{"as it is", func(p []byte) []byte { return p }, "", func(r record) bool {
			return r.length == 34 && r.block == 0x12345678 && r.size == 7 && string(r.name) == "A" && r.systemUse == nil && !r.isDirectory() && !r.interleaved
		}},
		{"nothing", func([]byte) []byte { return nil }, "there is no directory record", nil},
		{"zero", func([]byte) []byte { return make([]byte, 100) }, "there is no directory record", nil},
		{"one byte short", func(p []byte) []byte { p[0] = 33; return p }, "of 33 bytes; it needs 34", nil},
		{"over the end of the sector", func(p []byte) []byte { p[0] = 35; return p }, "of 35 bytes, of which 34 lie in its sector", nil},
		{"no name", func(p []byte) []byte { p[32] = 0; return p }, "a name of 0 bytes in a directory record of 34", nil},
		{"name over the end", func(p []byte) []byte { p[32] = 2; return p }, "a name of 2 bytes in a directory record of 34", nil},
		{"longest name", func(p []byte) []byte {
			p = append(p, bytes.Repeat([]byte{'A'}, 221)...)
			p[0], p[32] = 255, 222
			return p
		}, "", func(r record) bool { return len(r.name) == 222 && r.systemUse == nil }},
		{"directory", func(p []byte) []byte { p[25] = flagDirectory; return p }, "", func(r record) bool { return r.isDirectory() }},
		{"unit", func(p []byte) []byte { p[26] = 1; return p }, "", func(r record) bool { return r.interleaved }},
		{"gap", func(p []byte) []byte { p[27] = 1; return p }, "", func(r record) bool { return r.interleaved }},
		{"system use behind an odd name", func(p []byte) []byte { p[0] = 36; return append(p, 'X', 'Y') }, "", func(r record) bool { return string(r.systemUse) == "XY" }},
		{"system use behind an even name", func(p []byte) []byte { p[0], p[32] = 38, 2; return append(p, 'B', 0, 'X', 'Y') }, "", func(r record) bool {
			return string(r.name) == "AB" && string(r.systemUse) == "XY"
		}},
		{"big-endian numbers are not looked at", func(p []byte) []byte { clear(p[6:10]); clear(p[14:18]); return p }, "", func(r record) bool {
			return r.block == 0x12345678 && r.size == 7
		}},
	} {
		r, err := parseRecord(c.change(rawRecord('A', 0x12345678, 7, 0)))
		if (err != nil) != (c.text != "") || err != nil && !strings.Contains(err.Error(), c.text) || err == nil && !c.check(r) {
			t.Errorf("%s: %+v, %v", c.name, r, err)
		}
	}
}

// TestLongTimes has the times in digits.
func TestLongTimes(t *testing.T) {
	for text, want := range map[string]disk.Time{
		"1970010100000000\x00": {},
		"1970010100000099\x00": {Nsec: 990_000_000},
		"1970010102000000\x08": {},          // two hours ahead of UTC
		"1970010100000000\xfc": {Sec: 3600}, // one behind
		"1970010100000000\x34": {Sec: -13 * 3600},
		"1970010100000000\xd0": {Sec: 12 * 3600},
		"1970010101000000\x35": {Sec: 3600}, // beyond the zones
		"1970010101000000\xcf": {Sec: 3600},
		"2155123123595999\x00": {Sec: 5869583999, Nsec: 990_000_000},
		"0000000000000000\x00": {},
		"1970130100000000\x00": {}, // month 13
		"1970010000000000\x00": {}, // day 0
		"1970010124000000\x00": {}, // hour 24
		"1970010100600000\x00": {},
		"1970010100006000\x00": {},
		"1970 10100000000\x00": {},
		"197001010000000:\x00": {},
	} {
		if got := longTime([]byte(text)); got != want {
			t.Errorf("%q is %+v, want %+v", text, got, want)
		}
	}
}

// TestSections has files of as many extents as there may be, and of one more. Their
// records fill sectors, in which none goes over the end.
func TestSections(t *testing.T) {
	for _, c := range []struct {
		extents int
		change  func(raw []byte)
		want    error
		text    string
	}{
		{1, nil, nil, ""},
		{2, nil, nil, ""},
		{61, nil, nil, ""}, // the last one in another sector
		{maxSections, nil, nil, ""},
		{maxSections + 1, nil, disk.ErrLimit, "more than 4096 extents"},
		{3, func(raw []byte) { raw[2*minRecord+33] = 'B' }, disk.ErrCorrupt, "extent number 3 of it should be here"},
		{3, func(raw []byte) { raw[minRecord] = 0 }, disk.ErrCorrupt, "extent number 2 of it should be here"},
		{2, func(raw []byte) { raw[minRecord+25] = flagMultiExtent }, disk.ErrCorrupt, "extent number 3 of it should be here"},
	} {
		var raw disktest.Mem
		for i := range c.extents {
			if len(raw)%sectorSize+minRecord > sectorSize {
				raw = append(raw, make([]byte, sectorSize-len(raw)%sectorSize)...)
			}
			flags := byte(flagMultiExtent)
			if i == c.extents-1 {
				flags = 0
			}
			raw = append(raw, rawRecord('A', uint32(100+i), uint32(i+1), flags)...)
		}
		raw = append(raw, make([]byte, 2*sectorSize-len(raw)%sectorSize)...)
		if c.change != nil {
			c.change(raw)
		}
		fs := &Filesystem{dev: ondisk.NewPages(raw, sectorSize, 1<<20), volume: &descriptor{blockSize: 2048}}
		first, err := parseRecord(raw)
		if err != nil {
			t.Fatal(err)
		}
		list, err := fs.sections(0, &first)
		if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.text) || err == nil && len(list) != c.extents {
			t.Errorf("%d extents: %d, %v, want %v that says %q", c.extents, len(list), err, c.want, c.text)
			continue
		}
		next := int64(0)
		for i, s := range list {
			if want := (section{off: next, length: int64(i + 1), at: int64(100+i) * 2048}); s != want {
				t.Errorf("of %d extents number %d is %+v, want %+v", c.extents, i, s, want)
			}
			next += s.length
		}
	}
}

// TestPlainNames has what Linux makes of names without Rock Ridge, and of those of Joliet.
func TestPlainNames(t *testing.T) {
	for raw, want := range map[string]string{
		"README.TXT;1": "readme.txt", "README.;1": "readme", "README": "readme", "A.B;2": "a.b.2", "A;1;1": "a.1",
		"A/B": "a.b", "a_b-c": "a_b-c", ";1": "", "..": ".", "ÄB": "Äb",
	} {
		if got := string(appendPlain(nil, []byte(raw))); got != want {
			t.Errorf("%q is %q, want %q", raw, got, want)
		}
	}
	for text, want := range map[string]string{
		"Read me.txt;1": "Read me.txt", "Read me.txt": "Read me.txt", "dots...": "dots", ".": ".", "...": ".", "ä€;1": "ä€", "x;2": "x;2",
	} {
		var raw []byte
		for _, r := range text {
			raw = binary.BigEndian.AppendUint16(raw, uint16(r))
		}
		if got := jolietName(raw); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	for raw, want := range map[string]string{
		"\x00a\x00": "a", "\xd8\x3d\xde\x00": "😀", "\xd8\x3d\x00a": "\uFFFDa", "": "",
	} {
		if got := decodeUCS2([]byte(raw)); got != want {
			t.Errorf("%x is %q, want %q", raw, got, want)
		}
	}
	// Each of 111 characters may take three bytes.
	for n, want := range map[int]string{85: "", 86: "its name is longer than 255 bytes"} {
		if got := checkName([]byte(jolietName(bytes.Repeat([]byte{0x20, 0xac}, n)))); got != want {
			t.Errorf("a name of %d characters: %q, want %q", n, got, want)
		}
	}
}
