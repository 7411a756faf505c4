package btrfs

import (
	"errors"
	"fmt"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// checkLimit checks that within is nil, and that beyond is a refusal of a kind.
func checkLimit(t *testing.T, what string, within, beyond, kind error) {
	t.Helper()
	if within != nil {
		t.Errorf("%s, as many as there may be: %v", what, within)
	}
	if !errors.Is(beyond, kind) {
		t.Errorf("%s, one too many: %v, want %v", what, beyond, kind)
	}
}

// TestChunkLimits has as many chunks, and as many stripes, as there may be.
func TestChunkLimits(t *testing.T) {
	add := func(chunks, stripes, more int) error {
		m := chunkMap{chunks: make([]*chunk, chunks), stripes: stripes}
		for i := range m.chunks {
			m.chunks[i] = &chunk{logical: uint64(i) << 20, length: 1 << 20}
		}
		return m.add(&chunk{logical: uint64(chunks) << 20, length: 1 << 20, stripes: make([]stripe, more)})
	}
	checkLimit(t, "chunks", add(maxChunks-1, 9, 1), add(maxChunks, 9, 1), disk.ErrLimit)
	checkLimit(t, "stripes", add(9, maxStripes-2, 2), add(9, maxStripes-2, 3), disk.ErrLimit)
}

// TestLogLimits replays the log of a seed with as little left of each limit as that takes,
// and with one less.
func TestLogLimits(t *testing.T) {
	f := forge(t, seedBytes(t, "log"))
	log := f.tree(treeLog)
	used := func(bytes int64, sums int) (*logUse, error) {
		u := &logUse{fs: f.fs, bytes: bytes, sumBytes: sums}
		return u, u.tree(log)
	}
	u, err := used(0, 0)
	if err != nil || u.bytes == 0 || u.sumBytes == 0 {
		t.Fatalf("%+v, %v", u, err)
	}
	_, within := used(maxLogBytes-u.bytes, maxLogSums-u.sumBytes)
	_, beyond := used(maxLogBytes-u.bytes+1, 0)
	checkLimit(t, "bytes of the log", within, beyond, disk.ErrUnsupported)
	_, beyond = used(0, maxLogSums-u.sumBytes+1)
	checkLimit(t, "bytes of checksums", within, beyond, disk.ErrUnsupported)

	replay := func(l limits) (limits, error) {
		_, err := f.fs.replaySubvolume(fsTree, log, &l)
		return l, err
	}
	spent, err := replay(limits{})
	if err != nil || spent.seen == 0 || spent.kept == 0 {
		t.Fatalf("%+v, %v", spent, err)
	}
	_, within = replay(limits{seen: maxLogWork - spent.seen})
	_, beyond = replay(limits{seen: maxLogWork - spent.seen + 1})
	checkLimit(t, "bytes that are looked through", within, beyond, disk.ErrUnsupported)
	_, beyond = replay(limits{kept: maxChangeBytes - spent.kept + 1})
	checkLimit(t, "bytes that are kept", nil, beyond, disk.ErrUnsupported)
}

// TestPathLimits asks where subvolumes lie with as little left of each limit as that takes,
// and with one less.
func TestPathLimits(t *testing.T) {
	f := forge(t, seedBytes(t, "mixed"))
	describe := func(total, hops int) (*placer, error) {
		p := &placer{fs: f.fs, paths: make(map[uint64]string), total: total, hops: hops}
		s, err := p.describe(257)
		if err == nil && string(s.Path) != "sub/below" {
			t.Errorf("the path is %q", s.Path)
		}
		return p, err
	}
	p, err := describe(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, within := describe(maxPaths-p.total, maxHops-p.hops)
	_, beyond := describe(maxPaths-p.total+1, 0)
	checkLimit(t, "bytes of paths", within, beyond, errTooMany)
	_, beyond = describe(0, maxHops-p.hops+1)
	checkLimit(t, "steps", within, beyond, errTooMany)
	_, within = p.path(258, maxPath)
	p = &placer{fs: f.fs, paths: make(map[uint64]string)}
	_, beyond = p.path(258, maxPath+1)
	checkLimit(t, "bytes of one path", within, beyond, disk.ErrLimit)
}

// TestXattrLimit has as many bytes of attributes as are read, and one more.
func TestXattrLimit(t *testing.T) {
	read := func(size int) error {
		f := forge(t, seedBytes(t, "mixed"))
		s, err := f.fs.subvolume(fsTree)
		if err != nil {
			t.Fatal(err)
		}
		s.changes = &changes{}
		n, err := disk.Lookup(f.fs, []byte("a/small"))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; size > 0; i++ {
			item := dirItem{kind: typeXattr, name: fmt.Appendf(nil, "user.%06d", i)}
			item.data = make([]byte, max(0, min(size, 4096)-dirItemSize-len(item.name)))
			if rest := size - 4096; rest > 0 && rest < 100 { // too little for another one
				item.data = append(item.data, make([]byte, rest)...)
			}
			raw := appendDirItem(nil, item)
			s.changes.set(change{key: key{n.Ino & maxObject, kindXattr, uint64(nameHash(item.name))}, value: value{raw: raw}})
			size -= len(raw)
		}
		list, err := f.fs.Xattrs(n.Ino)
		if err == nil && len(list) < maxXattrBytes/4300 {
			t.Errorf("%d attributes", len(list))
		}
		return err
	}
	checkLimit(t, "bytes of attributes", read(maxXattrBytes), read(maxXattrBytes+1), disk.ErrLimit)
}
