package btrfs

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

func openSeed(t *testing.T, name string) *Filesystem {
	t.Helper()
	fs, err := Open([]disk.Sparse{disktest.LoadSeed(t, name)}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// TestChanges makes random changes to the items of a directory and of its
// neighbours, and compares with a list of what must be there.
func TestChanges(t *testing.T) {
	fs := openSeed(t, "mixed")
	large, err := disk.Lookup(fs, []byte("large"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := fs.readSubvolume(fsTree)
	if err != nil {
		t.Fatal(err)
	}
	object := large.Ino & maxObject
	want := make(map[uint64][]byte)
	collect := func(from uint64) map[uint64][]byte {
		got := make(map[uint64][]byte)
		last := int64(-1)
		err := s.items(object, kindDirIndex, from, func(offset uint64, v value) error {
			if int64(offset) <= last {
				return fmt.Errorf("item %d behind %d", offset, last)
			}
			last = int64(offset)
			got[offset] = v.raw
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	maps.Copy(want, collect(0))
	if len(want) != 41 {
		t.Fatalf("%d entries", len(want))
	}
	s.changes = &changes{}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 3000 {
		k := key{object, kindDirIndex, r.Uint64N(2000)}
		if r.IntN(4) == 0 { // of the neighbours
			k = key{object - r.Uint64N(2), kindDirItem + uint8(r.IntN(20)), r.Uint64N(2000)}
		}
		n := change{key: k, gone: r.IntN(3) == 0}
		if !n.gone {
			n.value.raw = fmt.Append(nil, i)
		}
		s.changes.set(n)
		if k.is(object, kindDirIndex) {
			want[k.offset] = n.value.raw
			if n.gone {
				delete(want, k.offset)
			}
		}
		if v, err := s.get(k); err != nil || !bytes.Equal(v.raw, n.value.raw) {
			t.Fatalf("%v is %q, %v", k, v.raw, err)
		}
		if i%100 == 0 {
			checkChanges(t, s, object, want, collect, r.Uint64N(2100))
		}
	}
}

func checkChanges(t *testing.T, s *subvolume, object uint64, want map[uint64][]byte, collect func(uint64) map[uint64][]byte, from uint64) {
	t.Helper()
	if got := collect(0); !maps.EqualFunc(got, want, bytes.Equal) {
		t.Fatalf("%d items, want %d", len(got), len(want))
	}
	later := maps.Clone(want)
	maps.DeleteFunc(later, func(offset uint64, _ []byte) bool { return offset < from })
	if got := collect(from); !maps.EqualFunc(got, later, bytes.Equal) {
		t.Fatalf("%d items from %d on, want %d", len(got), from, len(later))
	}
	sorted := slices.Sorted(maps.Keys(want))
	i, found := slices.BinarySearch(sorted, from)
	if !found {
		i--
	}
	expect := uint64(0)
	if i >= 0 {
		expect = sorted[i]
	}
	if got, err := s.before(object, kindDirIndex, from); err != nil || got != expect {
		t.Fatalf("before %d is %d, %v; want %d", from, got, err, expect)
	}
}

// TestReplayLimits replays a log with little left of each limit.
func TestReplayLimits(t *testing.T) {
	fs := openSeed(t, "log")
	logs := &tree{volume: fs.volume, name: logName, owner: treeLog, root: fs.sb.logRoot}
	v, err := logs.get(key{treeLog, kindRoot, fsTree})
	if err != nil || v.raw == nil {
		t.Fatalf("no log: %v", err)
	}
	item, err := parseRoot(logName, v)
	if err != nil {
		t.Fatal(err)
	}
	log := &tree{volume: fs.volume, name: logName, owner: treeLog, root: item.pointer}
	for text, l := range map[string]limits{"looked through": {seen: maxLogWork - 2000}, "changes more than": {kept: maxChangeBytes - 2000}} {
		_, err := fs.replaySubvolume(fsTree, log, &l)
		var detail *disk.Error
		if !errors.Is(err, disk.ErrUnsupported) || !errors.As(err, &detail) || !strings.Contains(detail.Detail, text) || detail.Hint == "" {
			t.Errorf("%s: %v", text, err)
		}
	}
	if done, err := fs.replaySubvolume(fsTree, log, &limits{}); err != nil || len(done.pieces) == 0 {
		t.Errorf("without a limit: %v", err)
	}
	if done, err := fs.replaySubvolume(9999, log, &limits{}); err != nil || done != nil {
		t.Errorf("a subvolume that is gone: %v", err)
	}
}

// TestRows compares where the parts of a chunk on each device lie with where each
// of its bytes does.
func TestRows(t *testing.T) {
	for _, c := range []*chunk{
		{length: 6 * 3 * stripeLength, columns: 3, copies: 1},
		{length: 4 * 2 * stripeLength, columns: 2, copies: 2},
		{length: 4 * stripeLength, columns: 1, copies: 2},
	} {
		for i := range c.columns * c.copies {
			c.stripes = append(c.stripes, stripe{device: i, offset: uint64(i+1) << 30})
		}
		r := rand.New(rand.NewPCG(2, 2))
		for range 300 {
			off := r.Uint64N(c.length/4096) * 4096
			length := min(r.Uint64N(6*stripeLength/4096)*4096+4096, c.length-off)
			got := make(map[int]uint64)
			for i := range c.stripes {
				first, last := part{c, i}.place(off, length)
				got[i] = last - first
			}
			for at := off; at < off+length; at += 4096 {
				for copy := range c.copies {
					s, where, _ := c.piece(at, copy)
					if first, last := (part{c, s.device}).place(off, length); where < first || where+4096 > last {
						t.Fatalf("byte %d is at %#x of stripe %d, outside %#x to %#x", at, where, s.device, first, last)
					}
					got[s.device] -= 4096
				}
			}
			for i, left := range got {
				if left != 0 {
					t.Fatalf("stripe %d: %d bytes too many", i, int64(left))
				}
			}
		}
	}
}
