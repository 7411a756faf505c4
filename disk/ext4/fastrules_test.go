package ext4_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// The kinds of tags, in the test's own words.
const (
	fcAdd = iota + 1
	fcDel
	fcCreate
	fcLink
	fcUnlink
	fcInode
	fcPad
	fcTail
	fcHead
)

// fastBuilder writes fast commits into the seed journal-fast, in place of its
// own.
type fastBuilder struct {
	raw    []byte
	places []int // byte offsets of the area's blocks
	tid    uint32
	sum    uint32
	block  int
	at     int // in the block
}

func newFastBuilder(t *testing.T) *fastBuilder {
	t.Helper()
	m := disktest.LoadSeed(t, "journal-fast")
	b := &fastBuilder{raw: make([]byte, m.Length)}
	if _, err := m.ReadAt(b.raw, 0); err != nil {
		t.Fatal(err)
	}
	// The area is 15 blocks at the end of the journal, which has one extent there.
	first := bytes.Index(b.raw, []byte{fcHead, 0, 8, 0, 0, 0, 0, 0})
	if first < 0 || first%logBlockSize != 0 {
		t.Fatal("the seed has no fast commits")
	}
	b.tid = binary.LittleEndian.Uint32(b.raw[first+8:])
	for i := range 15 {
		b.places = append(b.places, first+i*logBlockSize)
		clear(b.raw[first+i*logBlockSize:][:logBlockSize])
	}
	return b
}

// tag writes a tag, behind a pad where the block has no room for it.
func (b *fastBuilder) tag(kind uint16, value ...byte) {
	b.room(4 + len(value))
	b.put(kind, value)
}

// room goes to the next block unless size bytes are left in this one.
func (b *fastBuilder) room(size int) {
	left := logBlockSize - b.at
	if left >= size {
		return
	}
	if left >= 4 {
		b.put(fcPad, make([]byte, left-4))
	}
	b.block, b.at = b.block+1, 0
}

func (b *fastBuilder) put(kind uint16, value []byte) {
	p := binary.LittleEndian.AppendUint16(nil, kind)
	p = binary.LittleEndian.AppendUint16(p, uint16(len(value)))
	p = append(p, value...)
	copy(b.raw[b.places[b.block]+b.at:], p)
	b.at += len(p)
	b.sum = rawCRC(b.sum, p)
}

// tail ends a fast commit. flip spoils its checksum.
func (b *fastBuilder) tail(tid, flip uint32) {
	b.room(12)
	length := logBlockSize - b.at - 4 // to the end of the block
	p := []byte{fcTail, 0, byte(length), byte(length >> 8)}
	p = binary.LittleEndian.AppendUint32(p, tid)
	p = binary.LittleEndian.AppendUint32(p, rawCRC(b.sum, p)^flip)
	copy(b.raw[b.places[b.block]+b.at:], p)
	b.block, b.at, b.sum = b.block+1, 0, 0
}

func numbers(list ...uint32) (p []byte) {
	for _, v := range list {
		p = binary.LittleEndian.AppendUint32(p, v)
	}
	return p
}

func (b *fastBuilder) head(tid uint32) { b.tag(fcHead, numbers(0, tid)...) }

func (b *fastBuilder) entry(kind uint16, parent, ino uint32, name string) {
	b.tag(kind, append(numbers(parent, ino), name...)...)
}

// inode writes the tag of a regular file with extents.
func (b *fastBuilder) inode(ino uint32, links uint16, size uint32) {
	p := make([]byte, 160)
	le := binary.LittleEndian
	le.PutUint16(p, 0o100644)
	le.PutUint32(p[4:], size)
	le.PutUint16(p[0x1a:], links)
	le.PutUint32(p[0x20:], 0x80000)
	le.PutUint16(p[0x80:], 32)
	b.tag(fcInode, append(numbers(ino), p...)...)
}

func (b *fastBuilder) extent(ino, logical, length, physical uint32) {
	b.tag(fcAdd, numbers(ino, logical, length, physical)...) // the upper 16 bits of the place are zero
}

// fastRules are what replaying fast commits has to tell apart. The inodes are
// those of the seed: 12 is the directory a, 15 is a/small, 90 is free.
var fastRules = []struct {
	name  string
	build func(b *fastBuilder)
	want  string // the names in a, with inode numbers and links
	err   error
	torn  bool
}{
	{"none", func(b *fastBuilder) {}, "b:13 fast:20 medium:16/1 small:15/1", nil, false},
	{"of another transaction", func(b *fastBuilder) { b.head(b.tid - 1); b.entry(fcLink, 12, 15, "x"); b.tail(b.tid-1, 0) },
		"b:13 fast:20 medium:16/1 small:15/1", nil, false},
	{"link", func(b *fastBuilder) { b.head(b.tid); b.entry(fcLink, 12, 15, "x"); b.tail(b.tid, 0) },
		"b:13 fast:20 medium:16/1 small:15/2 x:15/2", nil, false},
	{"link of a name that is there", func(b *fastBuilder) { b.head(b.tid); b.entry(fcLink, 12, 15, "medium"); b.tail(b.tid, 0) },
		"b:13 fast:20 medium:16/1 small:15/1", nil, false},
	{"link in what is no directory", func(b *fastBuilder) { b.head(b.tid); b.entry(fcLink, 16, 15, "x"); b.tail(b.tid, 0) },
		"b:13 fast:20 medium:16/1 small:15/1", nil, false},
	{"link of the longest name", func(b *fastBuilder) {
		b.head(b.tid)
		b.entry(fcLink, 12, 15, strings.Repeat("x", 255))
		b.entry(fcLink, 12, 15, "y")
		b.tail(b.tid, 0)
	}, "b:13 fast:20 medium:16/1 small:15/3 " + strings.Repeat("x", 255) + ":15/3 y:15/3", nil, false},
	{"link of a longer name", func(b *fastBuilder) {
		b.head(b.tid)
		b.entry(fcLink, 12, 15, strings.Repeat("x", 256))
		b.tail(b.tid, 0)
	}, "b:13 fast:20 medium:16/1 small:15/1", nil, true},
	{"link without a name", func(b *fastBuilder) { b.head(b.tid); b.entry(fcLink, 12, 15, ""); b.tail(b.tid, 0) },
		"b:13 fast:20 medium:16/1 small:15/1", nil, true},
	{"unlink", func(b *fastBuilder) { b.head(b.tid); b.entry(fcUnlink, 12, 15, "small"); b.tail(b.tid, 0) },
		"b:13 fast:20 medium:16/1", nil, false},
	{"unlink of another inode", func(b *fastBuilder) {
		b.head(b.tid)
		b.entry(fcLink, 12, 15, "x")
		b.entry(fcUnlink, 12, 15, "medium")
		b.tail(b.tid, 0)
	}, "b:13 fast:20 medium:16/1 small:15/1 x:15/1", nil, false},
	{"unlink of no name", func(b *fastBuilder) { b.head(b.tid); b.entry(fcUnlink, 12, 15, "x"); b.tail(b.tid, 0) },
		"b:13 fast:20 medium:16/1 small:15/1", nil, false},
	{"created", func(b *fastBuilder) {
		b.head(b.tid)
		b.inode(90, 1, 0)
		b.entry(fcCreate, 12, 90, "x")
		b.tail(b.tid, 0)
	}, "b:13 fast:20 medium:16/1 small:15/1 x:90/1", nil, false},
	{"created without an inode", func(b *fastBuilder) { b.head(b.tid); b.entry(fcCreate, 12, 90, "x"); b.tail(b.tid, 0) },
		"", disk.ErrCorrupt, false},
	{"no head", func(b *fastBuilder) { b.entry(fcLink, 12, 15, "x"); b.tail(b.tid, 0) },
		"b:13 fast:20 medium:16/1 small:15/1", nil, false},
	{"two commits", func(b *fastBuilder) {
		b.head(b.tid)
		b.entry(fcLink, 12, 15, "x")
		b.tail(b.tid, 0)
		b.entry(fcLink, 12, 15, "y")
		b.tail(b.tid, 0)
	}, "b:13 fast:20 medium:16/1 small:15/3 x:15/3 y:15/3", nil, false},
	{"the second is torn", func(b *fastBuilder) {
		b.head(b.tid)
		b.entry(fcLink, 12, 15, "x")
		b.tail(b.tid, 0)
		b.entry(fcLink, 12, 15, "y")
		b.tail(b.tid, 1)
	}, "b:13 fast:20 medium:16/1 small:15/2 x:15/2", nil, false},
	{"the first is torn", func(b *fastBuilder) { b.head(b.tid); b.entry(fcLink, 12, 15, "x"); b.tail(b.tid, 1) },
		"b:13 fast:20 medium:16/1 small:15/1", nil, true},
	{"no tail", func(b *fastBuilder) { b.head(b.tid); b.entry(fcLink, 12, 15, "x") },
		"b:13 fast:20 medium:16/1 small:15/1", nil, true},
	{"unknown tag", func(b *fastBuilder) {
		b.head(b.tid)
		b.entry(fcLink, 12, 15, "x")
		b.tail(b.tid, 0)
		b.tag(99, 1, 2, 3, 4)
		b.tail(b.tid, 0)
	}, "b:13 fast:20 medium:16/1 small:15/2 x:15/2", nil, false},
	{"features", func(b *fastBuilder) { b.tag(fcHead, numbers(1, b.tid)...); b.tail(b.tid, 0) }, "", disk.ErrUnsupported, false},
	{"over several blocks", func(b *fastBuilder) {
		b.head(b.tid)
		for i := range 12 {
			b.inode(90, 1, uint32(i))
		}
		b.entry(fcCreate, 12, 90, "x")
		b.tail(b.tid, 0)
	}, "b:13 fast:20 medium:16/1 small:15/1 x:90/1", nil, false},
	{"a reserved inode", func(b *fastBuilder) { b.head(b.tid); b.inode(8, 1, 0); b.tail(b.tid, 0) }, "", disk.ErrCorrupt, false},
	{"an inode behind the last", func(b *fastBuilder) { b.head(b.tid); b.inode(97, 1, 0); b.tail(b.tid, 0) }, "", disk.ErrCorrupt, false},
	{"a name with a slash", func(b *fastBuilder) { b.head(b.tid); b.entry(fcLink, 13, 15, "../x"); b.tail(b.tid, 0) },
		"b:13 fast:20 medium:16/1 small:15/2", nil, false},
}

func TestFastRules(t *testing.T) {
	for _, r := range fastRules {
		t.Run(r.name, func(t *testing.T) {
			b := newFastBuilder(t)
			r.build(b)
			fs, err := b.open()
			if err != nil || r.err != nil {
				if !errors.Is(err, r.err) {
					t.Errorf("got %v, want %v", err, r.err)
				}
				return
			}
			got := make(map[string]bool)
			if err := fs.ReadDir(12, func(e disk.DirEntry) error {
				n, err := fs.Inode(e.Ino)
				name := fmt.Sprintf("%s:%d", e.Name, e.Ino)
				if n.Type() == disk.ModeRegular {
					name += fmt.Sprintf("/%d", n.Links)
				}
				got[name] = true
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if list := strings.Join(slices.Sorted(maps.Keys(got)), " "); list != r.want {
				t.Errorf("a holds %s, want %s", list, r.want)
			}
			if torn := strings.Contains(strings.Join(fs.Info().Remarks, " "), "incomplete"); torn != r.torn {
				t.Errorf("remarks are %q", fs.Info().Remarks)
			}
		})
	}
}

func (b *fastBuilder) open() (*ext4.Filesystem, error) {
	return ext4.Open(disktest.Image{ReaderAt: bytes.NewReader(b.raw), Length: int64(len(b.raw))}, ext4.Options{})
}

// TestFastExtents lays changes of one file over one another. Its blocks are
// named by letters, as they are on disk; '.' is a hole or prealloced.
func TestFastExtents(t *testing.T) {
	for _, r := range []struct {
		name  string
		build func(b *fastBuilder, at uint32) // at: where block 'a' is
		want  string
	}{
		{"as it was", func(*fastBuilder, uint32) {}, "abc"},
		{"moved", func(b *fastBuilder, at uint32) { b.extent(90, 0, 2, at+1) }, "bcc"},
		{"the newest counts", func(b *fastBuilder, at uint32) {
			b.extent(90, 0, 3, at)
			b.extent(90, 1, 1, at)
			b.extent(90, 0, 1, at+2)
		}, "cac"},
		{"holes", func(b *fastBuilder, at uint32) {
			b.tag(fcDel, numbers(90, 1, 0xffffffff)...)
			b.extent(90, 2, 1, at)
		}, "a.a"},
		{"unwritten", func(b *fastBuilder, at uint32) { b.extent(90, 1, 32768+2, at) }, "a.."},
		{"nothing", func(b *fastBuilder, at uint32) { b.extent(90, 1, 0, at); b.tag(fcDel, numbers(90, 1, 0)...) }, "abc"},
		{"outside", func(b *fastBuilder, at uint32) { b.extent(90, 1, 1, 1<<31) }, "a!"},
		{"freed and used again", func(b *fastBuilder, at uint32) {
			b.entry(fcUnlink, 12, 90, "x")
			b.inode(90, 1, 3*logBlockSize)
			b.extent(90, 1, 1, at+2)
		}, ".c."},
	} {
		t.Run(r.name, func(t *testing.T) {
			b := newFastBuilder(t)
			// The free blocks at the end of the seed.
			at := uint32(len(b.raw)/logBlockSize - 4)
			for i := range 3 {
				copy(b.raw[(int(at)+i)*logBlockSize:], bytes.Repeat([]byte{'a' + byte(i)}, logBlockSize))
			}
			b.head(b.tid)
			b.inode(90, 1, 3*logBlockSize)
			b.extent(90, 0, 3, at)
			b.entry(fcCreate, 12, 90, "x")
			r.build(b, at)
			b.tail(b.tid, 0)
			fs, err := b.open()
			if err != nil {
				t.Fatal(err)
			}
			f, err := fs.Open(90)
			if err != nil {
				t.Fatal(err)
			}
			if got := fastContent(f); got != r.want {
				t.Errorf("content is %s, want %s", got, r.want)
			}
		})
	}
}

// fastContent returns the first letter of each block, or '!' where reading ends.
func fastContent(f disk.Sparse) string {
	var got []byte
	for block := range int64(3) {
		p := make([]byte, 1)
		if _, err := f.ReadAt(p, block*logBlockSize); err != nil {
			return string(append(got, '!'))
		}
		if p[0] == 0 {
			p[0] = '.'
		}
		got = append(got, p[0])
	}
	return string(got)
}

// TestFastDamage damages each field of the seed's fast commits, and makes their
// checksums right again.
func TestFastDamage(t *testing.T) {
	b := newFastBuilder(t)
	area := b.places[0]
	m := disktest.LoadSeed(t, "journal-fast")
	if _, err := m.ReadAt(b.raw, 0); err != nil {
		t.Fatal(err)
	}
	original := bytes.Clone(b.raw)
	damaged, replayed := 0, 0
	for at := area; at < area+4*logBlockSize; at += 2 {
		if at > area+16 && bytes.Equal(original[at-16:at+2], make([]byte, 18)) {
			continue // behind a tail
		}

		for _, v := range []uint16{0, 0xffff, binary.LittleEndian.Uint16(original[at:]) + 1} {
			copy(b.raw, original)
			binary.LittleEndian.PutUint16(b.raw[at:], v)
			sealFast(b.raw[area : area+4*logBlockSize])
			d := disktest.Image{ReaderAt: bytes.NewReader(b.raw), Length: m.Length}
			damage().Check(t, fmt.Sprintf("%#x = %#x", at-area, v), damage().Read(d))
			damaged++
			if fs, err := ext4.Open(d, ext4.Options{}); err == nil {
				if _, fast := fs.Replayed(); fast > 0 {
					replayed++
				}
			}
		}
	}
	if replayed < damaged/2 {
		t.Errorf("%d of %d damaged logs were replayed", replayed, damaged)
	}
}

// sealFast makes the checksums of fast commits right.
func sealFast(area []byte) {
	sum := uint32(0)
	for len(area) >= 4 {
		kind, length := binary.LittleEndian.Uint16(area), int(binary.LittleEndian.Uint16(area[2:]))
		left := len(area)%logBlockSize - 4
		if left < 0 {
			left += logBlockSize
		}
		if kind == 0 || length > left {
			return
		}
		if kind == fcTail {
			binary.LittleEndian.PutUint32(area[8:], rawCRC(sum, area[:8]))
			sum = 0
		} else {
			sum = rawCRC(sum, area[:4+length])
		}
		area = area[4+length:]
		if rest := len(area) % logBlockSize; rest < 4 {
			area = area[rest:]
		}
	}
}
