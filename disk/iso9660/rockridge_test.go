package iso9660

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// both is a number as ISO 9660 keeps most: little-endian, and big-endian.
func both(v uint32) string {
	return string(binary.BigEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, v), v))
}

// takeAll is what the entries of a record make of its attributes.
func takeAll(entries [][2]string) (a *attributes, wrong string) {
	a = &attributes{child: -1}
	for _, e := range entries {
		if wrong = a.take(e[0], []byte(e[1])); wrong != "" {
			return a, wrong
		}
	}
	return a, ""
}

// TestTargets builds the targets of symlinks from the forms of their components: flags,
// length, text; 1 goes on in the next, 2 is ".", 4 is "..", 8 is "/".
func TestTargets(t *testing.T) {
	long := "\x00\xfa" + strings.Repeat("n", 250)
	part := [2]string{"SL", "\x01" + long}
	for _, c := range []struct {
		name    string
		entries [][2]string
		want    string // with "!", what is wrong
	}{
		{"one", [][2]string{{"SL", "\x00\x00\x01a"}}, "a"},
		{"two", [][2]string{{"SL", "\x00\x00\x01a\x00\x01b"}}, "a/b"},
		{"in two entries", [][2]string{{"SL", "\x01\x00\x01a"}, {"SL", "\x00\x00\x01b"}}, "a/b"},
		{"one in two entries", [][2]string{{"SL", "\x01\x01\x01a"}, {"SL", "\x00\x00\x01b"}}, "ab"},
		{"root", [][2]string{{"SL", "\x00\x08\x00"}}, "/"},
		{"from the root", [][2]string{{"SL", "\x00\x08\x00\x00\x01a\x00\x01b"}}, "/a/b"},
		{"up and here", [][2]string{{"SL", "\x00\x04\x00\x02\x00\x00\x01a"}}, ".././a"},
		{"an empty component", [][2]string{{"SL", "\x00\x00\x01a\x00\x00"}}, "a/"},
		{"no components", [][2]string{{"SL", "\x00"}}, ""},
		{"nothing", [][2]string{{"SL", ""}}, "!is too short"},
		{"no length", [][2]string{{"SL", "\x00\x00"}}, "!ends within a component"},
		{"no text", [][2]string{{"SL", "\x00\x00\x02a"}}, "!ends within a component"},
		{"a volume", [][2]string{{"SL", "\x00\x10\x00"}}, "!has a component of a kind that is not known"},
		{"the host", [][2]string{{"SL", "\x00\x20\x00"}}, "!has a component of a kind that is not known"},
		{"NUL", [][2]string{{"SL", "\x00\x00\x03a\x00b"}}, "!has a NUL in it"},
		{"the longest", append(repeat(part, 16), [2]string{"SL", "\x00\x00\x4f" + strings.Repeat("e", 79)}), strings.Repeat(strings.Repeat("n", 250)+"/", 16) + strings.Repeat("e", 79)},
		{"one too long", append(repeat(part, 16), [2]string{"SL", "\x00\x00\x50" + strings.Repeat("e", 80)}), "!makes the target longer than 4095 bytes"},
	} {
		a, wrong := takeAll(c.entries)
		if got := string(a.target); wrong == "" && got != c.want || wrong != "" && "!"+wrong != c.want {
			t.Errorf("%s: %q, %q, want %q", c.name, got, wrong, c.want)
		}
	}
}

func repeat(e [2]string, n int) (list [][2]string) {
	for range n {
		list = append(list, e)
	}
	return list
}

// TestNames builds names from their parts, of flags and text; 1 goes on in the next.
func TestNames(t *testing.T) {
	half := strings.Repeat("h", 128)
	for _, c := range []struct {
		name    string
		entries [][2]string
		want    string // with "!", why the file is left out
	}{
		{"one part", [][2]string{{"NM", "\x00name"}}, "name"},
		{"two parts", [][2]string{{"NM", "\x01na"}, {"NM", "\x00me"}}, "name"},
		{"no text", [][2]string{{"NM", "\x00"}}, "!it has no name"},
		{"the longest", [][2]string{{"NM", "\x01" + half}, {"NM", "\x00" + half[1:]}}, half + half[1:]},
		{"one too long", [][2]string{{"NM", "\x01" + half}, {"NM", "\x00" + half}}, "!its name is longer than 255 bytes"},
		{"itself", [][2]string{{"NM", "\x02"}}, "!its name is one that Rock Ridge keeps for itself"},
		{"above", [][2]string{{"NM", "\x04"}}, "!its name is one that Rock Ridge keeps for itself"},
		{"the host", [][2]string{{"NM", "\x20host"}}, "!its name is one that Rock Ridge keeps for itself"},
		{"a dot", [][2]string{{"NM", "\x00."}}, "!its name is ."},
		{"two dots", [][2]string{{"NM", "\x00.."}}, "!its name is .."},
		{"three dots", [][2]string{{"NM", "\x00..."}}, "..."},
		{"slash", [][2]string{{"NM", "\x00a/b"}}, "!its name has a slash or a NUL in it"},
		{"NUL", [][2]string{{"NM", "\x00a\x00"}}, "!its name has a slash or a NUL in it"},
	} {
		a, wrong := takeAll(c.entries)
		if wrong != "" {
			t.Errorf("%s: it %s, though that costs no more than the name", c.name, wrong)
		}
		if wrong = a.nameWrong; wrong == "" {
			wrong = checkName(a.name)
		}
		if got := string(a.name); wrong == "" && got != c.want || wrong != "" && "!"+wrong != c.want {
			t.Errorf("%s: %q, %q, want %q", c.name, got, wrong, c.want)
		}
	}
	if wrong := (&attributes{}).take("NM", nil); wrong != "is too short" {
		t.Errorf("a name without flags: %q", wrong)
	}
}

// TestShortEntries: each entry needs all of its fields, and may have more.
func TestShortEntries(t *testing.T) {
	for signature, size := range map[string]int{
		"PX": 32, "PN": 16, "CL": 8, "ZF": 12, "NM": 1, "SL": 1, "TF": 1, "RE": 0, "SF": 0, "XX": 0,
	} {
		for _, n := range []int{0, size - 1, size, size + 1} {
			if n < 0 || signature == "SL" && n > size { // then it has components
				continue
			}
			want := ""
			if n < size {
				want = "is too short"
			}
			if wrong := (&attributes{}).take(signature, make([]byte, n)); wrong != want {
				t.Errorf("%s of %d bytes: %q, want %q", signature, n, wrong, want)
			}
		}
	}
	// The times that the flags say, of 7 bytes or of 17.
	for flags, size := range map[byte]int{0x00: 0, 0x01: 7, 0x02: 7, 0x0f: 28, 0x70: 0, 0x80: 0, 0x82: 17, 0x8e: 51} {
		for _, n := range []int{size - 1, size} {
			wrong := (&attributes{}).take("TF", append([]byte{flags}, make([]byte, max(n, 0))...))
			if (wrong != "") != (n >= 0 && n < size) {
				t.Errorf("times of flags %#x in %d bytes: %q", flags, n, wrong)
			}
		}
	}
}

// TestDeviceNumbers has the two forms that there are.
func TestDeviceNumbers(t *testing.T) {
	for _, c := range []struct {
		high, low uint32
		want      disk.Device
	}{
		{0, 0, disk.Device{}},
		{0, 255, disk.Device{Minor: 255}},
		{0, 256, disk.Device{Major: 1}},
		{0, 0x0801, disk.Device{Major: 8, Minor: 1}},
		{8, 1, disk.Device{Major: 8, Minor: 1}},
		{1, 0x100, disk.Device{Major: 1, Minor: 256}},
		{300, 70_000, disk.Device{Major: 300, Minor: 70_000}},
	} {
		a, wrong := takeAll([][2]string{{"PN", both(c.high) + both(c.low)}})
		if wrong != "" || a.rdev != c.want {
			t.Errorf("%d and %d are %+v, %q, want %+v", c.high, c.low, a.rdev, wrong, c.want)
		}
	}
}
