package treetest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// HugeSize is the size of "extreme/huge" in bytes, of which three blocks are data.
const HugeSize = 1 << 40

// Extreme fills a new folder "extreme" in dir with what few programs can keep: a
// file of 1 TiB, paths longer than PATH_MAX, names at their limits, holes of all
// sizes and places, and files of zeros that are none.
func Extreme(t *testing.T, dir string) {
	t.Helper()
	m := newMaker(t, dir)
	m.must(os.Mkdir(m.path("extreme"), 0o755))
	m.holes()
	m.deep()
	m.dates()
	m.must(unix.Lsetxattr(m.path("extreme/head"), "user.not\xffutf8", []byte("odd"), 0))
	m.must(unix.Lsetxattr(m.path("extreme/head"), "user.a=b%", nil, 0))
	ChangeFlags(t, m.path("extreme/head"), NoDump, 0)
	ChangeFlags(t, m.path("extreme"), NoDump, 0)
}

// holes makes files of blocks, each "x" for data, "0" for zeros that are data, and
// "." for a hole.
func (m maker) holes() {
	const block = 4096
	for name, layout := range map[string]string{
		"alternate": strings.Repeat("x.", 300), "head": "..x", "tail": "x..", "one": ".", "small": "x.x",
		"zeros": strings.Repeat("0", 40), "beside": "x" + strings.Repeat("0", 20) + strings.Repeat(".", 20) + "0x",
		"large": strings.Repeat("x", 500) + strings.Repeat(".", 3000) + "x0" + strings.Repeat(".", 100),
	} {
		f, err := os.Create(m.path("extreme/" + name))
		m.must(err)
		// Half a block more, so that sizes are no multiples of blocks.
		m.must(f.Truncate(int64(len(layout)*block + block/2)))
		for i, c := range layout {
			p := make([]byte, block)
			switch c {
			case 'x':
				p = m.content(block)
			case '.':
				continue
			}
			_, err := f.WriteAt(p, int64(i*block))
			m.must(err)
		}
		m.must(f.Sync()) // blocks that are promised and not there yet are no holes to lseek
		m.must(f.Close())
	}
	f, err := os.Create(m.path("extreme/huge"))
	m.must(err)
	m.must(f.Truncate(HugeSize))
	for _, off := range []int64{0, 700<<30 + block, HugeSize - block} {
		_, err := f.WriteAt(m.content(block), off)
		m.must(err)
	}
	m.must(f.Close())
}

// deep makes a file whose path has more than 5000 bytes.
func (m maker) deep() {
	at, err := os.OpenRoot(m.path("extreme"))
	m.must(err)
	for i := range 20 {
		name := strings.Repeat(string(rune('a'+i)), 255)
		m.must(at.Mkdir(name, 0o755))
		below, err := at.OpenRoot(name)
		m.must(err)
		m.must(at.Close())
		at = below
	}
	m.must(at.WriteFile("at the end", []byte("deep"), 0o644))
	m.must(at.Close())
}

// dates makes files with times that are far away.
func (m maker) dates() {
	for name, t := range map[string]unix.Timespec{
		"before 1970": {Sec: -1, Nsec: 999999999}, "1901": {Sec: -1 << 31}, "2106": {Sec: 1<<32 + 1, Nsec: 1},
	} {
		m.write("extreme/"+name, []byte(name), 0o644)
		m.must(unix.UtimesNanoAt(unix.AT_FDCWD, m.path("extreme/"+name), []unix.Timespec{t, t}, 0))
	}
	for i := range 200 { // a directory of several blocks, with names of all lengths
		m.write(fmt.Sprintf("extreme/%03d%s", i, strings.Repeat("l", i)), nil, 0o600)
	}
}
