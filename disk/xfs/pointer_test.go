package xfs_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// deepImage makes a filesystem of blocks of 1 KiB whose trees all have nodes above
// their leaves, as the kernel writes them.
func deepImage(t *testing.T) string {
	path := makeImage(t, 40<<20, "-b", "size=1024", "-d", "agcount=1")
	dir, unmount := disktest.Mount(t, path, "xfs", "rw")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	many := filepath.Join(dir, "many")
	must(os.Mkdir(many, 0o755))
	for i := range 4200 { // 66 chunks of inodes, a leaf has 60
		must(os.WriteFile(filepath.Join(many, fmt.Sprintf("file-%d", i)), nil, 0o600))
	}
	extents, err := os.Create(filepath.Join(dir, "extents"))
	must(err)
	must(unix.Fallocate(int(extents.Fd()), 0, 0, 6<<20))
	for i := range int64(3000) { // 50 leaves, the inode has room for some 20
		must(unix.Fallocate(int(extents.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, i*2048, 1024)) // and as many pieces of free space
	}
	must(extents.Close())
	g := &disktest.Generator{T: t, Dir: dir}
	file := g.File("xattrs", nil)
	for i := range 260 { // a leaf each, a node has 120
		g.SetXattr(file, fmt.Sprintf("user.number-%d", i), bytes.Repeat([]byte{byte(i)}, 600))
	}
	unmount()
	return path
}

// treeNodes are the blocks of a tree: two of each level, or all.
type treeNodes struct {
	name                    string
	magic                   string
	magicAt, levelAt, count int  // offsets
	keys                    int  // where they are
	key, pointer            int  // bytes
	chained                 bool // each pointer is behind its key, and only the first is followed: leaves know the next
}

// pointers returns a structure for each block, with a field for its first and its
// last pointer.
func (n *treeNodes) pointers(s *fieldSeed) (list []disktest.Structure, levels int) {
	seen := make(map[uint16]int)
	var blocks []int
	for at := 0; at < len(s.raw); at += 1024 {
		level := binary.BigEndian.Uint16(s.raw[at+n.levelAt:])
		if !bytes.HasPrefix(s.raw[at+n.magicAt:], []byte(n.magic)) || seen[level] == 2 && !n.chained {
			continue
		}
		seen[level]++
		blocks = append(blocks, at)
	}
	for _, at := range blocks {
		level, count := binary.BigEndian.Uint16(s.raw[at+n.levelAt:]), int(binary.BigEndian.Uint16(s.raw[at+n.count:]))
		if level == 0 {
			continue
		}
		first, step := n.keys+(1024-n.keys)/(n.key+n.pointer)*n.key, n.pointer
		if n.chained {
			first, step = n.keys+n.key, n.key+n.pointer
		}
		k := disktest.Structure{
			Name: fmt.Sprintf("%s, level %d", n.name, level), Places: []disktest.Place{disktest.At(int64(at))},
			Fields: []disktest.Field{{Name: "first pointer", Offset: first, Size: n.pointer}},
		}
		if last := first + (count-1)*step; last != first && !n.chained {
			k.Fields = append(k.Fields, disktest.Field{Name: "last pointer", Offset: last, Size: n.pointer})
			k.Values = append(k.Values, s.number(at+first, n.pointer), s.number(at+last, n.pointer))
		}
		for _, other := range blocks { // itself, and its relatives
			k.Values = append(k.Values, uint64(other/1024))
		}
		if old := slices.IndexFunc(list, func(o disktest.Structure) bool { return o.Name == k.Name }); n.chained && old >= 0 {
			list[old].Places = append(list[old].Places, k.Places...) // only one of them is the first
			continue
		}
		list = append(list, k)
	}
	return list, len(seen)
}

func (s *fieldSeed) number(at, size int) uint64 {
	if size == 4 {
		return uint64(binary.BigEndian.Uint32(s.raw[at:]))
	}
	return binary.BigEndian.Uint64(s.raw[at:])
}

// TestEveryPointer points the nodes of all trees to themselves, to their parents,
// their siblings and to where nothing is.
func TestEveryPointer(t *testing.T) {
	t.Parallel()
	path := deepImage(t)
	compareClean(t, path)
	s := &fieldSeed{t: t, image: disktest.OpenImage(t, path), fs: openFilesystem(t, path)}
	s.raw = make([]byte, s.image.Length)
	if _, err := s.image.ReadAt(s.raw, 0); err != nil {
		t.Fatal(err)
	}
	for _, n := range []treeNodes{
		{"inode tree", "IAB3", 0, 4, 6, 56, 4, 4, false},
		{"free space tree", "AB3B", 0, 4, 6, 56, 8, 4, false},
		{"extent tree", "BMA3", 0, 4, 6, 72, 8, 8, false},
		{"tree of attributes", "\x3e\xbe", 8, 58, 56, 64, 4, 4, true},
	} {
		list, levels := n.pointers(s)
		if len(list) == 0 || levels < 2 {
			t.Errorf("the %s has %d levels", n.name, levels)
		}
		s.list = append(s.list, list...)
	}
	d := sealedDamage()
	d.EveryField(t, s.image, s.list, nil)
}
