package xfs

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// TestChanged lays changes of a mapping over what the disk says, in every order and
// overlap that little room allows, and compares with doing them one after the other.
func TestChanged(t *testing.T) {
	const blocks = 12
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		var m mapping
		// Which block of the disk each has; that of a hole is 0.
		var want [blocks]uint64
		for i := range want {
			want[i] = 100 + uint64(i)
		}
		for range random.IntN(5) {
			c := change{logical: random.Uint64N(blocks), physical: 1000 * (1 + random.Uint64N(9))}
			c.length = 1 + random.Uint64N(blocks-c.logical)
			if random.IntN(4) == 0 {
				c.kind = disk.ExtentHole
			}
			m.changes = append(m.changes, c)
			for i := range c.length {
				if want[c.logical+i] = c.physical + i; c.kind == disk.ExtentHole {
					want[c.logical+i] = 0
				}
			}
		}
		for block := uint64(0); block < blocks; block++ {
			s := m.changed(block, stretch{physical: 100 + block, length: blocks - block})
			if s.length == 0 || block+s.length > blocks {
				t.Fatalf("%+v: block %d starts %d", m.changes, block, s.length)
			}
			for i := range s.length {
				got := s.physical + i
				if s.kind == disk.ExtentHole {
					got = 0
				}
				if got != want[block+i] {
					t.Fatalf("%+v: from block %d on %+v, but block %d is %d", m.changes, block, s, block+i, want[block+i])
				}
			}
		}
	}
}

// loggedChange is an intent to give a block of an inode's content another place, as it
// is in the log.
func loggedChange(id, ino uint64) *item {
	le := binary.LittleEndian
	p := le.AppendUint16(nil, itemBUI)
	p = le.AppendUint16(p, 1)
	p = le.AppendUint32(p, 1) // extents
	p = le.AppendUint64(p, id)
	p = le.AppendUint64(p, ino)
	p = le.AppendUint64(p, 50) // block
	p = le.AppendUint64(p, 0)  // of the file
	p = le.AppendUint32(p, 1)  // length
	p = le.AppendUint32(p, 1)  // map
	return &item{at: 512, regions: [][]byte{p}}
}

// done is what ends it.
func done(id uint64) *item {
	it := loggedChange(id, 0)
	binary.LittleEndian.PutUint16(it.regions[0], itemBUD)
	return it
}

// TestIntentLimits has as many open intents as are possible, and one more.
func TestIntentLimits(t *testing.T) {
	var i intents
	note := func(it *item) {
		t.Helper()
		if err := i.note(it); err != nil {
			t.Fatal(err)
		}
	}
	// However many there are one after the other, and in however many turns.
	for id := range uint64(5 * maxIntents) {
		note(loggedChange(id, 1))
		note(done(id))
	}
	if i.count() != 0 || len(i.order) > 2*maxIntents {
		t.Errorf("%d are open, the order is of %d", i.count(), len(i.order))
	}
	for id := range uint64(maxIntents) {
		note(loggedChange(id, id))
	}
	if err := i.note(loggedChange(maxIntents, 1)); !errors.Is(err, disk.ErrLimit) {
		t.Errorf("one too many: %v", err)
	}
	note(done(7))
	note(loggedChange(maxIntents, 1))
	if i.count() != maxIntents {
		t.Errorf("%d are open", i.count())
	}
}

// TestChangeLimits has as many open changes of one file as are possible, and one more.
func TestChangeLimits(t *testing.T) {
	sb := &superblock{blocks: 1000, agBlocks: 1000, agCount: 1, agShift: 10}
	for n, want := range map[uint64]error{0: nil, 1: nil, maxChanges: nil, maxChanges + 1: disk.ErrLimit} {
		var i intents
		for id := range n {
			if err := i.note(loggedChange(id, 9)); err != nil {
				t.Fatal(err)
			}
		}
		if err := i.note(loggedChange(n, 10)); err != nil { // of another file
			t.Fatal(err)
		}
		if err := i.settle(sb); !errors.Is(err, want) {
			t.Errorf("%d changes: %v, want %v", n, err, want)
		}
		if got := len(i.mappings[forkKey{9, false}]); want == nil && got != int(n) {
			t.Errorf("%d changes of %d", got, n)
		}
	}
}
