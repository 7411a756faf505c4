package fat_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/fat"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

var update = flag.Bool("update", false, "make the images in testdata anew")

// seeds are the small images in testdata from which damage and fuzzing start.
// mtools wrote them. That of FAT32, which has to be large for mtools, is then cut
// to so many sectors.
var seeds = []struct {
	name string
	bits int
	size int64
	cut  int
	mkfs []string
}{
	{"fat12", 12, 200 << 10, 0, []string{"-F", "12", "-s", "1", "-r", "32", "-n", "SEED"}},
	{"fat16", 16, 2200 << 10, 0, []string{"-F", "16", "-s", "1", "-r", "32", "-n", "SEED", "-a"}},
	{"fat32", 32, 34 << 20, 1300, []string{"-F", "32", "-s", "1", "-n", "SEED"}},
}

const (
	longSeedName = "A long name, of which there are several parts.text"
	seedPieces   = 40*512 + 7 // bytes of the file in pieces
)

// seedTree is what a seed holds.
func seedTree() source {
	s := source{
		"README.TXT": []byte("upper"), "lower.txt": []byte("lower"), longSeedName: []byte("long"),
		"dir/sub/deep": []byte("deep"), "empty": {}, "locked": []byte("read-only"),
		"pieces": large(seedPieces),
	}
	for i := range 20 {
		s[fmt.Sprintf("dir/many/number %d, long", i)] = []byte(fmt.Sprint(i))
	}
	return s
}

func writeSeed(t *testing.T, name string, size int64, sectors int, mkfs []string) {
	image := makeImage(t, size, mkfs...)
	s := seedTree()
	pieces := s["pieces"]
	delete(s, "pieces")
	for i := range 8 {
		s[fmt.Sprintf("gap-%d", i)] = make([]byte, 600)
	}
	s.put(t, image)
	mtools(t, image, "mdel", "::/gap-0", "::/gap-2", "::/gap-4", "::/gap-6")
	if sectors != 0 {
		forgetNextFree(t, image)
	}
	source{"pieces": pieces}.put(t, image)
	mtools(t, image, "mdel", "::/gap-1", "::/gap-3", "::/gap-5", "::/gap-7")
	mtools(t, image, "mattrib", "+r", "::/locked")
	if sectors != 0 {
		raw, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		binary.LittleEndian.PutUint32(raw[0x20:], uint32(sectors))
		copy(raw[6*512:], raw[:512])                            // the copy of the boot sector
		binary.LittleEndian.PutUint32(raw[512+0x1e8:], 1<<32-1) // free clusters: not known
		if err := os.WriteFile(image, raw[:sectors*512], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	disktest.SaveSeed(t, name, image)
}

// forgetNextFree lets mtools look for free clusters from the first on.
func forgetNextFree(t *testing.T, image string) {
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const nextFree = 512 + 0x1ec // in the FSInfo sector
	if _, err := f.WriteAt([]byte{0xff, 0xff, 0xff, 0xff}, nextFree); err != nil {
		t.Fatal(err)
	}
}

// TestSeeds fails if a seed is missing, does not load, or does not hold what the
// tests of damage are about.
func TestSeeds(t *testing.T) {
	for _, s := range seeds {
		t.Run(s.name, func(t *testing.T) {
			if *update {
				writeSeed(t, s.name, s.size, s.cut, s.mkfs)
			}
			m := disktest.LoadSeed(t, s.name)
			fs := openFilesystem(t, m)
			if info := fs.Info(); string(info.Label) != "SEED" || len(info.Remarks) != 0 || info.Size != m.Length {
				t.Errorf("%+v, %d bytes", info, m.Length)
			}
			all := disktest.ReadTree(t, fs)
			for path, content := range seedTree() {
				n, ok := all["/"+path]
				if !ok || !bytes.Equal(readAll(t, fs, n.Ino), content) {
					t.Errorf("%s: %+v", path, n)
				}
			}
			if got := all["/locked"].Mode; got != disk.ModeRegular|0o444 {
				t.Errorf("a read-only file has mode %o", got)
			}
			if n := all["/dir/many"]; n.Size < 3*512 {
				t.Errorf("a directory of %d bytes", n.Size)
			}
			f, err := fs.Open(all["/pieces"].Ino)
			if err != nil {
				t.Fatal(err)
			}
			pieces := 0
			if err := f.Extents(0, f.Size(), func(disk.Extent) error { pieces++; return nil }); err != nil || pieces < 4 {
				t.Errorf("%d pieces, %v", pieces, err)
			}
		})
	}
}

// editor changes a seed.
type editor struct {
	t       testing.TB
	raw     []byte
	bits    int
	fat     int // where things are, in bytes
	root    int
	rootLen int
	data    int
}

func edit(t testing.TB, seed string) *editor {
	t.Helper()
	m := disktest.LoadSeed(t, seed)
	e := &editor{t: t, raw: make([]byte, m.Length)}
	if _, err := m.ReadAt(e.raw, 0); err != nil {
		t.Fatal(err)
	}
	fmt.Sscanf(seed, "fat%d", &e.bits)
	le := binary.LittleEndian
	e.fat = int(le.Uint16(e.raw[0x0e:])) * 512
	size := int(le.Uint16(e.raw[0x16:]))
	if e.bits == 32 {
		size = int(le.Uint32(e.raw[0x24:]))
	}
	e.root = e.fat + 2*size*512
	e.rootLen = int(le.Uint16(e.raw[0x11:])) * 32
	e.data = e.root + e.rootLen
	return e
}

func (e *editor) image() disktest.Mem { return e.raw }

func (e *editor) open() *fat.Filesystem {
	e.t.Helper()
	return openFilesystem(e.t, e.image())
}

// set changes the entry of a cluster in the first table. Marks are given with all
// bits.
func (e *editor) set(cluster int, v uint32) {
	le := binary.LittleEndian
	switch e.bits {
	case 12:
		p := e.raw[e.fat+cluster*3/2:]
		if cluster%2 == 1 {
			le.PutUint16(p, le.Uint16(p)&0xf|uint16(v)<<4)
		} else {
			le.PutUint16(p, le.Uint16(p)&0xf000|uint16(v)&0xfff)
		}
	case 16:
		le.PutUint16(e.raw[e.fat+cluster*2:], uint16(v))
	case 32:
		le.PutUint32(e.raw[e.fat+cluster*4:], v)
	}
}

// cluster returns the content of a cluster.
func (e *editor) cluster(n int) []byte { return e.raw[e.data+(n-2)*512:][:512] }

// entry returns the entry with a short name of 11 characters.
func (e *editor) entry(short string) []byte {
	e.t.Helper()
	i := bytes.Index(e.raw[e.root:], []byte(short))
	if i < 0 || len(short) != 11 || bytes.Contains(e.raw[e.root+i+32:], []byte(short)) && !strings.HasPrefix(short, ".") {
		e.t.Fatalf("no entry %q, or several", short)
	}
	return e.raw[e.root+i:][:32]
}

// start is the first cluster of an entry.
func start(entry []byte) int { return int(binary.LittleEndian.Uint16(entry[0x1a:])) }

func setStart(entry []byte, cluster int) {
	binary.LittleEndian.PutUint16(entry[0x14:], uint16(cluster>>16))
	binary.LittleEndian.PutUint16(entry[0x1a:], uint16(cluster))
}

func setSize(entry []byte, size uint32) { binary.LittleEndian.PutUint32(entry[0x1c:], size) }
