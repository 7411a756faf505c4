package fat_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// short is an entry of a root directory that a test makes.
type short struct {
	name      string // 11 characters
	attribute byte
	lower     byte
}

func (s short) bytes() []byte {
	b := make([]byte, 32)
	copy(b, s.name)
	b[11], b[12] = s.attribute, s.lower
	return b
}

// checksum is that of the specification, as it is given there.
func (s short) checksum() (sum byte) {
	for i := range 11 {
		odd := sum&1 != 0
		sum >>= 1
		if odd {
			sum += 0x80
		}
		sum += s.name[i]
	}
	return sum
}

// parts are the entries of a long name, in the order of the disk.
func parts(units []uint16, sum byte) (list [][]byte) {
	if len(units)%13 != 0 {
		units = append(units, 0)
	}
	for len(units)%13 != 0 {
		units = append(units, 0xffff)
	}
	for i := len(units)/13 - 1; i >= 0; i-- {
		b := make([]byte, 32)
		b[0], b[11], b[13] = byte(i+1), 0x0f, sum
		if len(list) == 0 {
			b[0] |= 0x40
		}
		for j, u := range units[13*i:][:13] {
			at := []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}[j]
			binary.LittleEndian.PutUint16(b[at:], u)
		}
		list = append(list, b)
	}
	return list
}

func long(name string, s short) [][]byte {
	return append(parts(utf16.Encode([]rune(name)), s.checksum()), s.bytes())
}

// TestNames writes entries by hand, and compares with the names that Linux shows
// for them with utf8 and code page 437.
func TestNames(t *testing.T) {
	plain := short{name: "SHORT   TXT"}
	sum := plain.checksum()
	wide := utf16.Encode([]rune("a long name of three parts, not two"))
	for name, v := range map[string]struct {
		entries [][]byte
		want    string // separated by |
	}{
		"8.3":                    {[][]byte{plain.bytes()}, "SHORT.TXT"},
		"no extension":           {[][]byte{short{name: "SHORT      "}.bytes()}, "SHORT"},
		"blank inside":           {[][]byte{short{name: "A B     C D"}.bytes()}, "A B.C D"},
		"lower":                  {[][]byte{short{name: "SHORT   TXT", lower: 0x18}.bytes()}, "short.txt"},
		"lower name":             {[][]byte{short{name: "SHORT   TXT", lower: 0x08}.bytes()}, "short.TXT"},
		"lower extension":        {[][]byte{short{name: "SHORT   TXT", lower: 0x10}.bytes()}, "SHORT.txt"},
		"code page":              {[][]byte{short{name: "\x80\x81\xe1\xe4\xffA  \xfeB "}.bytes()}, "ÇüßΣ\u00a0A.■B"},
		"code page lower":        {[][]byte{short{name: "\x80\x9a\xe4\xe2    TXT", lower: 0x18}.bytes()}, "çüσΓ.txt"},
		"first is E5":            {[][]byte{short{name: "\x05BC     TXT"}.bytes()}, "σBC.TXT"},
		"dots inside":            {[][]byte{short{name: "A.B     TXT"}.bytes()}, "A.B.TXT"},
		"long":                   {long("Some longer name.text", plain), "Some longer name.text"},
		"13":                     {long("thirteen char", plain), "thirteen char"},
		"1":                      {long("x", plain), "x"},
		"255":                    {long(strings.Repeat("x", 255), plain), strings.Repeat("x", 255)},
		"pair":                   {long("smile 😀.txt", plain), "smile 😀.txt"},
		"halves":                 {append(parts([]uint16{0xd83d, 'a', 0xde00}, sum), plain.bytes()), "\xed\xa0\xbda\xed\xb8\x80"},
		"half at the end":        {append(parts([]uint16{'a', 0xd83d}, sum), plain.bytes()), "a\xed\xa0\xbd"},
		"256 bytes":              {long(strings.Repeat("ü", 128), plain), "SHORT.TXT"},
		"slash":                  {long("etc/passwd", plain), "SHORT.TXT"},
		"dots":                   {long("..", plain), "SHORT.TXT"},
		"dot":                    {long(".", plain), "SHORT.TXT"},
		"empty":                  {append(parts([]uint16{0}, sum), plain.bytes()), "SHORT.TXT"},
		"no parts":               {append([][]byte{{0x40, 11: 0x0f, 13: sum, 31: 0}}, plain.bytes()), "SHORT.TXT"},
		"21 parts":               {append(parts(make([]uint16, 21*13), sum), plain.bytes()), "SHORT.TXT"},
		"checksum":               {append(parts(wide, sum+1), plain.bytes()), "SHORT.TXT"},
		"checksum of one part":   {append(append(parts(wide, sum)[:2], parts(wide, sum+1)[2]), plain.bytes()), "SHORT.TXT"},
		"first part missing":     {append(parts(wide, sum)[:2], plain.bytes()), "SHORT.TXT"},
		"middle part missing":    {append([][]byte{parts(wide, sum)[0], parts(wide, sum)[2]}, plain.bytes()), "SHORT.TXT"},
		"last part missing":      {append(parts(wide, sum)[1:], plain.bytes()), "SHORT.TXT"},
		"a part twice":           {append([][]byte{parts(wide, sum)[0]}, append(parts(wide, sum)[:], plain.bytes())...), string(utf16.Decode(wide))},
		"part 1 twice":           {append(parts(wide, sum), parts(wide, sum)[2], plain.bytes()), "SHORT.TXT"},
		"deleted part":           {append(append(parts(wide, sum)[:2:2], []byte{0xe5, 31: 0}, parts(wide, sum)[2]), plain.bytes()), "SHORT.TXT"},
		"deleted file":           {append(parts(wide, sum), []byte{0xe5, 31: 0}, plain.bytes()), "SHORT.TXT"},
		"label between":          {append(parts(wide, sum), short{name: plain.name, attribute: 8}.bytes(), plain.bytes()), "SHORT.TXT"},
		"used by one file":       {append(long("only the first", plain), short{name: "SHORT   TXU"}.bytes()), "only the first|SHORT.TXU"},
		"label with directory":   {[][]byte{short{name: "ODD        ", attribute: 0x18}.bytes(), plain.bytes()}, "SHORT.TXT"},
		"reserved attributes":    {[][]byte{short{name: plain.name, attribute: 0xc0}.bytes()}, "SHORT.TXT"},
		"long with reserved bit": {append([][]byte{reserved(parts(utf16.Encode([]rune("bit")), sum)[0])}, plain.bytes()), "bit"},
		"behind the end":         {[][]byte{plain.bytes(), make([]byte, 32), short{name: "GHOST      "}.bytes()}, "SHORT.TXT"},
		"full":                   {fill(32), strings.TrimPrefix(fillNames(32), "|")},
	} {
		t.Run(name, func(t *testing.T) {
			e := edit(t, "fat16")
			clear(e.raw[e.root:][:e.rootLen])
			copy(e.raw[e.root:], bytes.Join(v.entries, nil)[:min(len(v.entries)*32, e.rootLen)])
			var got []string
			fs := e.open()
			if err := fs.ReadDir(fs.Info().Root, func(d disk.DirEntry) error {
				got = append(got, string(d.Name))
				_, err := fs.Inode(d.Ino)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if strings.Join(got, "|") != v.want {
				t.Errorf("got %q, want %q", got, v.want)
			}
		})
	}
}

func reserved(part []byte) []byte {
	part[11] |= 0xc0
	return part
}

// fill makes n entries, the whole of a root directory.
func fill(n int) (list [][]byte) {
	for i := range n {
		list = append(list, short{name: fmt.Sprintf("F%-10d", i)}.bytes())
	}
	return list
}

func fillNames(n int) (names string) {
	for i := range n {
		names += fmt.Sprintf("|F%d", i)
	}
	return names
}

// TestTimes compares with what Linux makes of the fields, in UTC.
func TestTimes(t *testing.T) {
	e := edit(t, "fat16")
	entry := e.entry("README  TXT")
	put := binary.LittleEndian.PutUint16
	for _, v := range []struct {
		date, time uint16
		hundredths byte
		want       disk.Time // of the creation, or of the last write where the hundredths do not count
	}{
		{0x0021, 0, 0, disk.Time{Sec: 315532800}},                               // 1980-01-01
		{44<<9 | 2<<5 | 29, 23<<11 | 59<<5 | 29, 0, disk.Time{Sec: 1709251198}}, // 2024-02-29 23:59:58
		{44<<9 | 2<<5 | 29, 23<<11 | 59<<5 | 29, 199, disk.Time{Sec: 1709251199, Nsec: 990_000_000}},
		{127<<9 | 12<<5 | 31, 0, 50, disk.Time{Sec: 4354732800, Nsec: 500_000_000}}, // 2107-12-31
		{1 << 9, 0, 0, disk.Time{Sec: 347155200}},                                   // day and month 0: the first
		{0x0021, 31<<11 | 63<<5 | 31, 255, disk.Time{Sec: 315532800 + 31*3600 + 63*60 + 62 + 2, Nsec: 550_000_000}},
	} {
		put(entry[0x0e:], v.time)
		put(entry[0x10:], v.date)
		entry[0x0d] = v.hundredths
		put(entry[0x12:], v.date)
		put(entry[0x16:], v.time)
		put(entry[0x18:], v.date)
		fs := e.open()
		n, err := fs.Inode(disktest.Lookup(t, fs, "README.TXT"))
		if err != nil {
			t.Fatal(err)
		}
		whole := disk.Time{Sec: v.want.Sec - int64(v.hundredths/100)}
		day := disk.Time{Sec: whole.Sec - whole.Sec%86400}
		if v.time>>11 > 23 {
			day.Sec -= 86400
		}
		if n.Birth != v.want || n.Modify != whole || n.Change != whole || n.Access != day {
			t.Errorf("%#x %#x %d: birth %v, modified %v, changed %v, read %v; want %v, read %v", v.date, v.time, v.hundredths, n.Birth, n.Modify, n.Change, n.Access, v.want, day)
		}
	}
	put(entry[0x10:], 0)
	put(entry[0x12:], 0)
	fs := e.open()
	n, err := fs.Inode(disktest.Lookup(t, fs, "README.TXT"))
	if err != nil || n.Birth != (disk.Time{}) || n.Access != n.Modify {
		t.Errorf("without times: %+v, %v", n, err)
	}
}
