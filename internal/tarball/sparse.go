package tarball

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/disk"
)

// archive/tar reads sparse files and does not write them, so their headers are
// written here, in GNU's PAX format 1.0 ("Storing Sparse Files" in the manual of GNU
// tar): the archived content begins with a map of the data, in decimal lines,
// filled up to a block.

const (
	blockSize = 512
	// maxOctal7 and maxOctal11 are the largest numbers of the header's fields
	// for an owner, and for a size or a time.
	maxOctal7  = 1<<21 - 1
	maxOctal11 = 1<<33 - 1
)

// sparse archives a file with holes.
func (a *archiver) sparse(h *tar.Header, content disk.Sparse, segments []segment) error {
	// A last segment of no bytes tells an unpacker how far the last hole goes.
	if n := len(segments); n == 0 || segments[n-1].off+segments[n-1].length < h.Size {
		segments = append(segments, segment{h.Size, 0})
	}
	table := sparseMap(segments)
	size := int64(len(table))
	for _, s := range segments {
		size += s.length
	}
	if err := a.tar.Flush(); err != nil { // fills up what comes before
		return err
	}
	for _, p := range [][]byte{sparseHeader(h, size), table} {
		if _, err := a.out.Write(p); err != nil {
			return err
		}
	}
	if err := a.data(a.out, content, segments, h.Name); err != nil {
		return err
	}
	_, err := a.out.Write(make([]byte, padding(size)))
	return err
}

func padding(size int64) int64 { return -size & (blockSize - 1) }

func sparseMap(segments []segment) []byte {
	b := fmt.Appendf(nil, "%d\n", len(segments))
	for _, s := range segments {
		b = fmt.Appendf(b, "%d\n%d\n", s.off, s.length)
	}
	return append(b, make([]byte, padding(int64(len(b))))...)
}

// sparseHeader returns the PAX header and the header of a file of h.Size bytes, of
// which size are archived, the map included.
func sparseHeader(h *tar.Header, size int64) []byte {
	records := maps.Clone(h.PAXRecords)
	if records == nil {
		records = map[string]string{}
	}
	records["GNU.sparse.major"] = "1"
	records["GNU.sparse.minor"] = "0"
	records["GNU.sparse.name"] = h.Name
	records["GNU.sparse.realsize"] = strconv.FormatInt(h.Size, 10)
	records["mtime"] = decimalTime(h.ModTime)
	for key, n := range map[string]int64{"uid": int64(h.Uid), "gid": int64(h.Gid)} {
		if n > maxOctal7 {
			records[key] = strconv.FormatInt(n, 10)
		}
	}
	if size > maxOctal11 {
		records["size"] = strconv.FormatInt(size, 10)
	}
	var body []byte
	for _, key := range slices.Sorted(maps.Keys(records)) {
		body = appendRecord(body, key, records[key])
	}
	dir, base := "", h.Name
	if i := strings.LastIndexByte(h.Name, '/'); i >= 0 {
		dir, base = h.Name[:i+1], h.Name[i+1:]
	}
	plain := tar.Header{Mode: 0o644, Typeflag: tar.TypeXHeader, Name: dir + "PaxHeaders.0/" + base, Size: int64(len(body))}
	out := headerBlock(&plain)
	out = append(append(out, body...), make([]byte, padding(int64(len(body))))...)
	file := *h
	file.Name, file.Size = dir+"GNUSparseFile.0/"+base, size
	return append(out, headerBlock(&file)...)
}

// appendRecord appends a PAX record, "LENGTH KEY=VALUE\n" with its own length.
func appendRecord(b []byte, key, value string) []byte {
	const fixed = len(" =\n")
	rest := len(key) + len(value) + fixed
	n := rest + len(strconv.Itoa(rest))
	n = rest + len(strconv.Itoa(n)) // the length may have got a digit more
	return fmt.Appendf(b, "%d %s=%s\n", n, key, value)
}

// decimalTime is the time as a PAX record has it: seconds with a fraction.
func decimalTime(t time.Time) string {
	const second = 1e9
	sec, nsec, sign := t.Unix(), int64(t.Nanosecond()), ""
	if sec < 0 && nsec > 0 {
		sec, nsec = sec+1, second-nsec
	}
	if t.Unix() < 0 {
		sec, sign = -sec, "-"
	}
	if nsec == 0 {
		return fmt.Sprintf("%s%d", sign, sec)
	}
	return strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, sec, nsec), "0")
}

// headerBlock is the block of a header in the ustar format. What has no room in it
// is in the PAX header in front.
//
//	0    100  name           124  12  size       257  6  "ustar\0"
//	100    8  mode           136  12  mtime      263  2  "00"
//	108    8  uid            148   8  checksum   329  8  devmajor
//	116    8  gid            156   1  type       337  8  devminor
func headerBlock(h *tar.Header) []byte {
	b := make([]byte, blockSize)
	copy(b[:100], strings.Map(func(r rune) rune {
		if r > '~' {
			return -1
		}
		return r
	}, h.Name))
	octal := func(field []byte, n, largest int64) {
		if n < 0 || n > largest {
			n = 0
		}
		copy(field, fmt.Appendf(nil, "%0*o", len(field)-1, n))
	}
	var mtime int64
	if !h.ModTime.IsZero() {
		mtime = h.ModTime.Unix()
	}
	octal(b[100:108], h.Mode, maxOctal7)
	octal(b[108:116], int64(h.Uid), maxOctal7)
	octal(b[116:124], int64(h.Gid), maxOctal7)
	octal(b[124:136], h.Size, maxOctal11)
	octal(b[136:148], mtime, maxOctal11)
	b[156] = h.Typeflag
	copy(b[257:], "ustar\x0000")
	octal(b[329:337], 0, 0)
	octal(b[337:345], 0, 0)
	copy(b[148:156], bytes.Repeat([]byte{' '}, 8)) // while it is computed
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:156], fmt.Appendf(nil, "%06o\x00 ", sum))
	return b
}
