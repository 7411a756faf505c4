package ext4_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// replayed returns the first letters of the blocks of "holes" after a replay.
func (b *logBuilder) replayed(t *testing.T) (letters string, transactions int, err error) {
	t.Helper()
	fs, err := ext4.Open(disktest.Image{ReaderAt: bytes.NewReader(b.raw), Length: int64(len(b.raw))}, ext4.Options{})
	if err != nil {
		return "", 0, err
	}
	f, err := fs.Open(disktest.Lookup(t, fs, "holes"))
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range holesBlocks {
		p := make([]byte, logBlockSize)
		if _, err := f.ReadAt(p, block*logBlockSize); err != nil {
			t.Fatal(err)
		}
		switch {
		case binary.BigEndian.Uint32(p) == logMagic && bytes.Count(p, []byte{0}) == logBlockSize-4:
			letters += "!"
		case bytes.Count(p, p[:1]) == logBlockSize:
			letters += string(p[:1])
		default:
			letters += "?"
		}
	}
	transactions, _ = fs.Replayed()
	return letters, transactions, nil
}

// rules are the cases that a replay has to tell apart. The letters that come
// out are those of the file's eight blocks.
var rules = []struct {
	name         string
	build        func(b *logBuilder)
	letters      string
	transactions int
	err          error
}{
	{"empty log", func(b *logBuilder) { b.start(0, 5) }, "abcdefgh", 0, nil},
	{"nothing committed", func(b *logBuilder) { b.start(1, 5) }, "abcdefgh", 0, nil},
	{"one transaction", func(b *logBuilder) {
		b.start(1, 5)
		b.write('X', "ac")
		b.commit(1)
	}, "XbXdefgh", 1, nil},
	{"the newest wins", func(b *logBuilder) {
		b.start(1, 5)
		b.write('X', "abc")
		b.commit(1)
		b.write('Y', "b")
		b.write('Z', "c")
		b.commit(2)
	}, "XYZdefgh", 2, nil},
	{"no commit block", func(b *logBuilder) {
		b.start(1, 5)
		b.write('X', "a")
		b.commit(1)
		b.write('Y', "b")
	}, "Xbcdefgh", 1, nil},
	{"around the end", func(b *logBuilder) {
		b.start(logLength-3, 5)
		b.write('X', "abcde") // its blocks are behind and before the end
		b.commit(1)
		b.write('Y', "f")
		b.commit(2)
	}, "XXXXXYgh", 2, nil},
	{"all around", func(b *logBuilder) {
		b.start(100, 5)
		for range (logLength - 1) / 3 {
			b.write('X', "a")
			b.commit(1)
		}
	}, "Xbcdefgh", 341, nil},
	{"longer than its ring", func(b *logBuilder) {
		b.start(100, 5)
		for range (logLength-1)/3 - 1 {
			b.write('X', "a")
			b.commit(1)
		}
		// Its blocks would be those of the first transactions.
		descriptor, before := b.pos, bytes.Clone(b.raw)
		b.write('Y', "bcdefgh")
		after := bytes.Clone(b.block(descriptor))
		copy(b.raw, before)
		copy(b.block(descriptor), after)
	}, "Xbcdefgh", 340, nil},
	{"sequence numbers wrap", func(b *logBuilder) {
		b.start(1, 0xffffffff)
		b.write('X', "ab")
		b.commit(1)
		b.revoke("b")
		b.write('Y', "c")
		b.commit(2)
	}, "XbYdefgh", 2, nil},
	{"revoked later", func(b *logBuilder) {
		b.start(1, 5)
		b.write('X', "abc")
		b.commit(1)
		b.revoke("ac")
		b.commit(2)
	}, "aXcdefgh", 2, nil},
	{"revoked in the same transaction", func(b *logBuilder) {
		b.start(1, 5)
		b.write('X', "ab")
		b.revoke("a")
		b.commit(1)
	}, "aXcdefgh", 1, nil},
	{"written again after a revoke", func(b *logBuilder) {
		b.start(1, 5)
		b.write('X', "ab")
		b.commit(1)
		b.revoke("ab")
		b.commit(2)
		b.write('Y', "a")
		b.commit(3)
	}, "Ybcdefgh", 3, nil},
	{"revoke without a commit", func(b *logBuilder) {
		b.start(1, 5)
		b.write('X', "a")
		b.commit(1)
		b.revoke("a")
	}, "Xbcdefgh", 1, nil},
	{"escaped", func(b *logBuilder) {
		b.start(1, 5)
		b.write(0x98, "bd")
		b.commit(1)
	}, "a!c!efgh", 1, nil},
	{"leftover of another sequence", func(b *logBuilder) {
		b.start(1, 5)
		b.write('X', "a")
		b.commit(1)
		b.seq = 3
		b.write('Y', "b")
		b.commit(2)
	}, "Xbcdefgh", 1, nil},
	{"unknown block", func(b *logBuilder) {
		b.start(1, 5)
		b.write('X', "a")
		b.commit(1)
		b.header(9)
	}, "Xbcdefgh", 1, nil},
	{"behind the filesystem", func(b *logBuilder) {
		b.start(1, 5)
		b.writeTo('X', 1<<20)
		b.commit(1)
	}, "", 0, disk.ErrCorrupt},
	{"revoke block too full", func(b *logBuilder) {
		b.start(1, 5)
		b.write('X', "a")
		b.revoke("a")
		p := b.block(b.pos - 1)
		binary.BigEndian.PutUint32(p[12:], 1025)
		if b.version >= 2 {
			clear(p[logBlockSize-4:])
			b.sealTail(p)
		}
		b.commit(1)
	}, "", 0, disk.ErrCorrupt},
}

// TestReplayRules tries the rules with checksums of all versions and with both
// widths of block numbers.
func TestReplayRules(t *testing.T) {
	for version := range 4 {
		for _, wide := range []bool{false, true} {
			for _, r := range rules {
				t.Run(fmt.Sprintf("v%d/wide=%v/%s", version, wide, r.name), func(t *testing.T) {
					b := newLogBuilder(t)
					b.version, b.wide = version, wide
					r.build(b)
					checkReplay(t, b, r.letters, r.transactions, r.err)
				})
			}
		}
	}
}

func checkReplay(t *testing.T, b *logBuilder, letters string, transactions int, want error) {
	t.Helper()
	got, n, err := b.replayed(t)
	if want != nil {
		if !errors.Is(err, want) {
			t.Errorf("got %q, %v, want %v", got, err, want)
		}
		return
	}
	if err != nil || got != letters || n != transactions {
		t.Errorf("got %q of %d transactions, %v, want %q of %d", got, n, err, letters, transactions)
	}
}

// TestReplayDamage damages one byte of a log, where checksums have to tell
// damage from the end of the log.
func TestReplayDamage(t *testing.T) {
	const later, earlier = 20, 5 // than the first transaction's time, 10
	for _, d := range []struct {
		name    string
		version int
		async   bool
		when    uint64 // of the second transaction
		damage  func(b *logBuilder, second uint32)
		letters string // or an error
	}{
		{"descriptor", 3, false, later, flip(0, 500), ""},
		{"descriptor, asynchronous", 3, true, later, flip(0, 500), ""},
		{"descriptor of a leftover", 3, false, earlier, flip(0, 500), "Xbcdefgh"},
		{"block", 3, false, later, flip(1, 500), ""},
		{"block, version 2", 2, false, later, flip(1, 500), ""},
		{"block without checksums", 0, false, later, flip(1, 500), "X?cdefgh"},
		{"block, version 1", 1, false, later, flip(1, 500), ""},
		{"block, version 1, asynchronous", 1, true, later, flip(1, 500), "Xbcdefgh"},
		{"commit", 3, false, later, flip(2, 500), ""},
		{"commit, asynchronous", 3, true, later, flip(2, 500), "Xbcdefgh"},
		{"commit of a leftover", 3, false, earlier, flip(2, 500), "Xbcdefgh"},
		{"commit's magic number", 3, false, later, flip(2, 0), "Xbcdefgh"},
		{"no checksum in a commit of version 1", 1, false, later, func(b *logBuilder, second uint32) {
			clear(b.block(second + 2)[0x0c:0x14])
		}, "XYcdefgh"},
	} {
		t.Run(d.name, func(t *testing.T) {
			b := newLogBuilder(t)
			b.version, b.async = d.version, d.async
			b.start(1, 5)
			b.write('X', "a")
			b.commit(10)
			second := b.pos
			b.write('Y', "b")
			b.commit(d.when)
			d.damage(b, second)
			if d.letters == "" {
				checkReplay(t, b, "", 0, disk.ErrCorrupt)
				return
			}
			n := 1
			if d.letters[1] != 'b' {
				n = 2
			}
			checkReplay(t, b, d.letters, n, nil)
		})
	}
}

// TestHighTargets has blocks whose numbers are those of others, but for their upper
// halves.
func TestHighTargets(t *testing.T) {
	for version := range 4 {
		b := newLogBuilder(t)
		b.version = version
		high := 1<<32 | b.target['a']
		b.start(1, 5)
		b.writeTo('X', high)
		b.commit(1)
		checkReplay(t, b, "", 0, disk.ErrCorrupt) // it is behind the filesystem

		b.target['A'] = high
		b.start(1, 5)
		b.write('X', "a")
		b.commit(1)
		b.revoke("A")
		b.commit(2)
		checkReplay(t, b, "Xbcdefgh", 2, nil)
	}
}

// TestRevokeDamage damages a byte of a revoke block that is not in use.
func TestRevokeDamage(t *testing.T) {
	for version, want := range []error{nil, nil, disk.ErrCorrupt, disk.ErrCorrupt} {
		b := newLogBuilder(t)
		b.version = version
		b.start(1, 5)
		b.write('X', "ab")
		b.commit(1)
		second := b.pos
		b.revoke("a")
		flip(0, 500)(b, second)
		b.commit(2)
		checkReplay(t, b, "aXcdefgh", 2, want)
	}
}

// flip damages a byte of a block of the second transaction.
func flip(block uint32, at int) func(*logBuilder, uint32) {
	return func(b *logBuilder, second uint32) { b.block(second + block)[at] ^= 0x20 }
}

// TestJournalSuperblock damages the fields of the journal's superblock.
func TestJournalSuperblock(t *testing.T) {
	for _, d := range []struct {
		name string
		at   int
		v    uint32
		want error
	}{
		{"magic", 0x00, 1, disk.ErrCorrupt},
		{"block type", 0x04, 1, disk.ErrCorrupt},
		{"block size", 0x0c, 4096, disk.ErrCorrupt},
		{"length", 0x10, logLength + 1, disk.ErrCorrupt},
		{"length of nothing", 0x10, 0, disk.ErrCorrupt},
		{"first", 0x14, 0, disk.ErrCorrupt},
		{"first behind the end", 0x14, logLength, disk.ErrCorrupt},
		{"start behind the end", 0x1c, logLength, disk.ErrCorrupt},
		{"incompat", 0x28, 0x40, disk.ErrUnsupported},
		{"ro_compat", 0x2c, 1, disk.ErrUnsupported},
		{"two versions of checksums", 0x28, 0x18, disk.ErrCorrupt},
		{"fast commits without room", 0x28, 0x30, disk.ErrCorrupt},
		{"checksum type", 0x50, 1 << 24, disk.ErrUnsupported},
	} {
		t.Run(d.name, func(t *testing.T) {
			b := newLogBuilder(t)
			b.start(1, 5)
			binary.BigEndian.PutUint32(b.block(0)[d.at:], d.v)
			b.sealJournal()
			checkReplay(t, b, "", 0, d.want)
		})
	}
	t.Run("checksum", func(t *testing.T) {
		b := newLogBuilder(t)
		b.start(1, 5)
		b.block(0)[0xfc] ^= 1
		checkReplay(t, b, "", 0, disk.ErrCorrupt)
	})
}
