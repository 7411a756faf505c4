package xfs_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/xfs"
)

// rules builds logs for one seed.
type rules struct {
	*logBuilder
	fs    *xfs.Filesystem // the seed, without a log
	small uint64          // inode a/small
	dir   int             // where the block of directory "block" is, in bytes
	entry int             // where its entry for entryName is
}

var entryName = "55" + strings.Repeat("n", 100)

func newRules(t *testing.T, block int) *rules {
	r := &rules{logBuilder: newLogBuilder(t, "v5-1k", block), fs: openSeed(t, "v5-1k", xfs.Options{})}
	r.small = disktest.Lookup(t, r.fs, "a/small")
	r.dir = blockWith(r.raw, "XDB3")
	r.entry = r.dir + bytes.Index(r.raw[r.dir:r.dir+4096], []byte(entryName)) - 9
	return r
}

// chmod sets the mode of a/small.
func (r *rules) chmod(mode uint16) [][]byte {
	return r.inode(r.small, func(core []byte) { binary.LittleEndian.PutUint16(core[2:], 0o100000|mode) })
}

// relinked logs the chunk with the entry, which is to be a/small. (Another name
// would have another hash, which the kernel checks.)
func (r *rules) relinked() [][]byte {
	off := r.entry &^ 127
	content := bytes.Clone(r.raw[off : off+128])
	binary.BigEndian.PutUint64(content[r.entry-off:], r.small)
	return r.buffer(r.dir, 4096, off, content)
}

// change is a change of the mapping of a/small, begun.
func (r *rules) change(id, kind uint64, physical uint64) [][]byte {
	return [][]byte{little(uint16(0x1244), uint16(1), uint32(1), id, r.small, physical, uint64(0), uint32(1), uint32(kind))}
}

// state is what the rules are about.
type state struct {
	mode   uint32 // of a/small
	linked bool   // the entry is a/small
}

var before = state{mode: 0o644}

func (s state) withMode(mode uint32) state { s.mode = mode; return s }
func (s state) relinked() state            { s.linked = true; return s }

func stateOf(t *testing.T, all disktest.Tree) state {
	t.Helper()
	entry, ok := all["/block/"+entryName]
	if !ok {
		t.Fatalf("there is no %q", entryName)
	}
	return state{mode: all["/a/small"].Mode & 0o7777, linked: entry.Ino == all["/a/small"].Ino}
}

// TestLogRules builds logs that each are about one rule, and has the kernel judge.
func TestLogRules(t *testing.T) {
	for _, c := range []struct {
		name  string
		block int // where in the ring the log starts
		build func(r *rules)
		want  state
	}{
		{"an inode", 100, func(r *rules) {
			r.record(transaction(1, r.chmod(0o600))...)
		}, before.withMode(0o600)},
		{"a buffer", 100, func(r *rules) {
			r.record(transaction(1, r.relinked())...)
		}, before.relinked()},
		{"not committed", 100, func(r *rules) {
			r.record(transaction(1, r.relinked())...)
			ops := transaction(2, r.chmod(0o600))
			r.record(ops[:len(ops)-1]...)
		}, before.relinked()},
		{"the last counts", 100, func(r *rules) {
			r.record(transaction(1, r.chmod(0o600))...)
			r.record(transaction(2, r.chmod(0o711))...)
		}, before.withMode(0o711)},
		{"two at once", 100, func(r *rules) {
			a, b := transaction(1, r.chmod(0o600)), transaction(2, r.relinked())
			r.record(append(a[:3:3], b[:3]...)...)
			r.record(append(b[3:len(b):len(b)], a[3:]...)...)
		}, before.withMode(0o600).relinked()},
		{"cancelled", 100, func(r *rules) {
			r.record(transaction(1, r.relinked())...)
			r.record(transaction(2, cancel(r.dir, 4096), r.chmod(0o600))...)
		}, before.withMode(0o600)},
		{"cancelled in the same transaction", 100, func(r *rules) {
			r.record(transaction(1, cancel(r.dir, 4096), r.relinked(), r.chmod(0o600))...)
		}, before.withMode(0o600)},
		{"logged again after the cancellation", 100, func(r *rules) {
			r.record(transaction(1, cancel(r.dir, 4096))...)
			r.record(transaction(2, r.relinked())...)
		}, before.relinked()},
		{"another length cancelled", 100, func(r *rules) {
			r.record(transaction(1, r.relinked())...)
			r.record(transaction(2, cancel(r.dir, 2048))...)
		}, before.relinked()},
		{"a buffer of quotas, which are nothing to a reader", 100, func(r *rules) {
			item := r.relinked()
			binary.LittleEndian.PutUint16(item[0][4:], 4|1<<11)
			r.record(transaction(1, item, r.chmod(0o600))...)
		}, before.withMode(0o600)},
		{"an inode's buffer cancelled", 100, func(r *rules) {
			item := r.chmod(0o600)
			start := int(binary.LittleEndian.Uint64(item[0][40:])) * 512
			r.record(transaction(1, item, r.relinked())...)
			r.record(transaction(2, cancel(start, 16<<10))...)
		}, before.relinked()},
		{"an inode that is newer", 100, func(r *rules) {
			item := r.chmod(0o600)
			binary.BigEndian.PutUint64(r.raw[r.small*512+112:], logCycle<<32|101)
			seal(r.raw[r.small*512:][:512], 100)
			r.record(transaction(1, item, r.relinked())...)
			r.record(transaction(2, r.relinked())...)
		}, before.relinked()},
		{"an inode of the same time", 100, func(r *rules) {
			item := r.chmod(0o600)
			binary.BigEndian.PutUint64(r.raw[r.small*512+112:], logCycle<<32|100)
			seal(r.raw[r.small*512:][:512], 100)
			r.record(transaction(1, item)...)
		}, before.withMode(0o600)},
		{"a buffer of the same time", 100, func(r *rules) {
			item := r.relinked()
			binary.BigEndian.PutUint64(r.raw[r.dir+16:], logCycle<<32|100)
			seal(r.raw[r.dir:][:4096], 4)
			r.record(transaction(1, item, r.chmod(0o600))...)
		}, before.withMode(0o600)},
		{"a buffer that is older", 100, func(r *rules) {
			item := r.relinked()
			binary.BigEndian.PutUint64(r.raw[r.dir+16:], logCycle<<32|99)
			seal(r.raw[r.dir:][:4096], 4)
			r.record(transaction(1, item, r.chmod(0o600))...)
		}, before.withMode(0o600).relinked()},
		{"a region in two records", 100, func(r *rules) {
			ops := transaction(1, r.chmod(0o600))
			core := ops[3].data
			r.record(append(ops[:3:3], op{1, 4, core[:50]})...)
			r.record(op{1, 8 | 4, core[50:100]})
			r.record(append([]op{{1, 8 | 16, core[100:]}}, ops[4:]...)...)
		}, before.withMode(0o600)},
		{"a header in two records", 100, func(r *rules) {
			ops := transaction(1, r.chmod(0o600))
			header := ops[1].data
			r.record(ops[0], op{1, 4, header[:8]})
			r.record(append([]op{{1, 8, header[8:]}}, ops[2:]...)...)
		}, before.withMode(0o600)},
		{"the rest of what started before the tail", 100, func(r *rules) {
			ops := transaction(1, r.chmod(0o600))
			r.record(ops[2:]...)
			r.record(transaction(2, r.relinked())...)
		}, before.relinked()},
		{"round the end of the ring", -3, func(r *rules) {
			r.record(transaction(1, r.chmod(0o600))...)
			r.record(transaction(2, r.relinked())...)
			r.record(transaction(3, r.chmod(0o611))...)
		}, before.withMode(0o611).relinked()},
		{"a header at the end of the ring", -1, func(r *rules) {
			r.record(transaction(1, r.chmod(0o600))...)
			r.record(transaction(2, r.relinked())...)
		}, before.withMode(0o600).relinked()},
		{"up to the end of the ring", -4, func(r *rules) {
			r.record(transaction(1, r.chmod(0o600))...)
			r.record(transaction(2, r.relinked())...)
		}, before.withMode(0o600).relinked()},
		{"from the start of the ring", 0, func(r *rules) {
			r.record(transaction(1, r.chmod(0o600))...)
			r.record(transaction(2, r.relinked())...)
		}, before.withMode(0o600).relinked()},
		{"the last record is torn", 100, func(r *rules) {
			r.record(transaction(1, r.relinked())...)
			r.record(transaction(2, r.chmod(0o600))...)
			r.at(r.last + 1)[100] ^= 1
		}, before.relinked()},
		{"a record before the last is torn", 100, func(r *rules) {
			r.record(transaction(1, r.relinked())...)
			r.record(transaction(2, r.chmod(0o600))...)
			r.at(r.last + 1)[100] ^= 1
			r.record(transaction(3, r.chmod(0o611))...)
		}, before.relinked()},
		{"the last block was not written", 100, func(r *rules) {
			r.record(transaction(1, r.relinked())...)
			r.record(transaction(2, r.chmod(0o600))...)
			binary.BigEndian.PutUint32(r.at(r.last+1), logCycle-1)
		}, before.relinked()},
		{"a block in between was not written", 100, func(r *rules) {
			r.record(transaction(1, r.relinked())...)
			r.record(transaction(2, r.chmod(0o600))...)
			binary.BigEndian.PutUint32(r.at(r.last), logCycle-1)
			r.record(transaction(3, r.chmod(0o611))...)
		}, before.relinked()},
		{"a full log whose first record was written over", 100, func(r *rules) {
			r.record(transaction(1, r.relinked())...)
			for tid := uint32(2); r.block != 96; tid++ {
				r.record(transaction(tid, r.chmod(0o600))...)
			}
			r.record(transaction(1, r.chmod(0o611))...)
			r.at(101)[100] ^= 1
		}, before.withMode(0o611)},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRules(t, c.block)
			c.build(r)
			path := r.image()
			fs := openFilesystem(t, path)
			if fs.Replayed() == 0 {
				t.Error("nothing was replayed")
			}
			all := disktest.ReadTree(t, fs)
			if got := stateOf(t, all); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			dir, unmount := disktest.Mount(t, path, "xfs", "rw,noatime")
			if judged := stateOf(t, disktest.KernelTree(t, dir)); judged != c.want {
				t.Errorf("the kernel says %+v, want %+v", judged, c.want)
			}
			unmount()
		})
	}
}

// TestLogOfVersion4 replays what no kernel of today does: records without
// checksums, inodes that count how often they were written instead of having a
// time, blocks without one.
func TestLogOfVersion4(t *testing.T) {
	const flushes = 30 // where an inode counts
	for _, c := range []struct {
		name            string
		present, logged uint16
		want            uint32
	}{
		{"newer", 3, 4, 0o600},
		{"the same", 3, 3, 0o600},
		{"older", 4, 3, 0o644},
		{"counted anew", 0xffff, 1, 0o600},
		{"older, at the end", 0xffff, 0xfffe, 0o644},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := openSeed(t, "v4-1k", xfs.Options{})
			b := newLogBuilder(t, "v4-1k", 100)
			ino := disktest.Lookup(t, fs, "a/small")
			item := b.inode(ino, func(core []byte) {
				binary.LittleEndian.PutUint16(core[2:], 0o100600)
				binary.LittleEndian.PutUint16(core[flushes:], c.logged)
			})
			item[1] = item[1][:96]
			binary.BigEndian.PutUint16(b.raw[ino*512+flushes:], c.present)
			dir := blockWith(b.raw, "XD2B")
			entry := dir + bytes.Index(b.raw[dir:dir+4096], []byte("first")) - 9
			off := entry &^ 127
			content := bytes.Clone(b.raw[off : off+128])
			binary.BigEndian.PutUint64(content[entry-off:], ino)
			b.record(transaction(1, item, b.buffer(dir, 4096, off, content))...)
			clear(b.at(b.last)[32:36])
			got := disktest.ReadTree(t, openFilesystem(t, b.image()))
			if mode := got["/a/small"].Mode & 0o7777; mode != c.want {
				t.Errorf("the mode is %#o, want %#o", mode, c.want)
			}
			if got["/block/first"].Ino != ino {
				t.Error("the directory's buffer was not replayed")
			}
		})
	}
}
