package ext4

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// The check values are those of the catalogue of parametrised CRC algorithms,
// for the nine digits: CRC-32/ISCSI is CRC-32C with its end inverted, CRC-16/MODBUS
// is ext4's CRC-16, CRC-32/MPEG-2 is jbd2's CRC-32.
func TestChecksums(t *testing.T) {
	digits := []byte("123456789")
	if got := ^uint32(startChecksum.add(digits)); got != 0xe3069283 {
		t.Errorf("crc32c: %#x", got)
	}
	if got := crc16(0xffff, digits); got != 0x4b37 {
		t.Errorf("crc16: %#x", got)
	}
	if got := crc32BE(0xffffffff, digits); got != 0x0376e6e7 {
		t.Errorf("crc32: %#x", got)
	}
	if a, b := startChecksum.addWithout(digits, 3, 2), startChecksum.add([]byte("123\x00\x006789")); a != b {
		t.Errorf("without a field: %#x, %#x", a, b)
	}
	if a, b := startChecksum.addUint32(0x31323334), startChecksum.add([]byte("4321")); a != b {
		t.Errorf("of a number: %#x, %#x", a, b)
	}
}

func TestConvertACL(t *testing.T) {
	for _, v := range []struct{ disk, xattr string }{
		{"01000000", "02000000"},
		{"01000000 01000700", "02000000 01000700ffffffff"},
		{"01000000 02000500e8030000 08000400ffffff7f 20000000", "02000000 02000500e8030000 08000400ffffff7f 20000000ffffffff"},
		{"", ""},
		{"010000", ""},
		{"02000000", ""},                 // version
		{"01000000 0100", ""},            // cut in an entry
		{"01000000 02000500e803", ""},    // cut in an id
		{"01000000 40000700", ""},        // tag
		{"01000000 01000700 000000", ""}, // rest
	} {
		raw, want := unhex(t, v.disk), unhex(t, v.xattr)
		got, err := convertACL(raw)
		if (err == nil) != (len(want) > 0) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s: %x, %v", v.disk, got, err)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(s), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
