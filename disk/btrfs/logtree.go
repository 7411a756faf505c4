package btrfs

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sort"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// sumRange is the checksums that the log has for a range of addresses.
type sumRange struct {
	first, end uint64
	sums       []byte
	at         int64 // of the item, for errors
}

// sumRanges is in ascending order, without overlap.
type sumRanges []sumRange

// at returns the range that an address lies in, or nil, and where the next begins.
func (r sumRanges) at(logical uint64) (*sumRange, uint64) {
	i := sort.Search(len(r), func(i int) bool { return r[i].end > logical })
	switch {
	case i == len(r):
		return nil, maxOffset
	case logical < r[i].first:
		return nil, r[i].first
	}
	return &r[i], 0
}

// addressRange is a range of logical addresses.
type addressRange struct{ start, length uint64 }

// addressRanges is in ascending order.
type addressRanges []addressRange

// within returns those that start in a range.
func (r addressRanges) within(start, length uint64) addressRanges {
	compare := func(a addressRange, at uint64) int {
		if a.start < at {
			return -1
		}
		return 1
	}
	first, _ := slices.BinarySearchFunc(r, start, compare)
	last, _ := slices.BinarySearchFunc(r, start+length, compare)
	return r[first:last]
}

const (
	// maxLogBytes bounds the tree blocks of all logs together. A log lives for
	// one commit, 30 s, and has about 1 KiB for a file that was synced.
	maxLogBytes = 64 << 20

	// maxLogSums bounds the checksums of all logs, in bytes: with crc32c those of
	// 16 GiB that were synced.
	maxLogSums = 16 << 20

	// maxChangeBytes bounds what a replay keeps in memory: the items that it
	// changes, with what it takes to keep each.
	maxChangeBytes = 40 << 20
	changeOverhead = 64

	// maxLogWork bounds what a replay looks through, in bytes of items and
	// some for each: seconds of work, and a hundred times what the largest log
	// of files that somebody made would need.
	maxLogWork = 1 << 30
)

// limits is what a replay has used so far.
type limits struct{ kept, seen int }

// logName is the log in errors.
const logName = "log"

const logHint = "shut the guest down cleanly, or back this disk up as an image"

// replay reads the logs of all subvolumes, and does in memory what Linux does on
// disk when it mounts the filesystem.
//
// The tree of logs has a root item for each: (-6, ROOT_ITEM, subvolume). A log has
// the items of files that were synced since the last commit, as the tree of the
// subvolume would have them, and for directories the ranges in which it has all
// entries: (directory, DIR_LOG_INDEX, first), 8 bytes of the last index.
func (fs *Filesystem) replay() error {
	logs := &tree{volume: fs.volume, name: logName, owner: treeLog, root: fs.sb.logRoot}
	used := &logUse{fs: fs}
	if err := used.tree(logs); err != nil {
		return err
	}
	limits := &limits{}
	all := make(map[uint64]*changes)
	// Nothing else is in the tree of logs, and it is made for the first of them. A
	// log that was there and is not found must not pass for none.
	var w walk
	err := logs.seek(&w, key{})
	if err == nil && !w.valid() {
		return layer.Damaged(logName, w.at(), "the tree of logs has none")
	}
	for ; err == nil && w.valid(); err = w.next() {
		if !w.key().is(treeLog, kindRoot) {
			return layer.Damaged(logName, w.at(), "item %v in the tree of logs", w.key())
		}
		id := w.key().offset
		item, err := parseRoot(logName, w.value())
		if err != nil {
			return err
		}
		log := &tree{volume: fs.volume, name: fmt.Sprintf("log of subvolume %d", id), owner: treeLog, root: item.pointer}
		if err := used.tree(log); err != nil {
			return err
		}
		done, err := fs.replaySubvolume(id, log, limits)
		if err != nil {
			return err
		}
		if done != nil {
			all[id] = done
		}
	}
	if err != nil {
		return err
	}
	fs.log, fs.logUsed = all, used.sorted()
	fs.logSums, err = used.sumRanges()
	fs.subvolumes = make(map[uint64]*subvolume) // those known so far have no changes
	return err
}

// logUse collects what logs take on disk: their blocks, the extents that they
// refer to, and the checksums of these.
type logUse struct {
	fs     *Filesystem
	bytes  int64
	ranges addressRanges

	sums     sumRanges
	sumBytes int
}

// tree collects what one log takes.
func (u *logUse) tree(t *tree) error {
	return u.block(t, &expectation{pointer: t.root, owner: t.owner, name: t.name, end: maxKey, isRoot: true})
}

// block does so from one block down. It goes no deeper than the level of the root,
// and comes to no block twice, see [walk.nextLeaf].
func (u *logUse) block(t *tree, e *expectation) error {
	n, err := t.read(e)
	if err != nil {
		return err
	}
	if u.bytes += int64(len(n)); u.bytes > maxLogBytes {
		return layer.Unsupported(t.name, offsetOf(e.block), logHint, "a log of more than %d bytes", maxLogBytes)
	}
	u.ranges = append(u.ranges, addressRange{e.block, uint64(len(n))})
	for i := range n.count() {
		if n.level() == 0 {
			if err := u.item(n.key(i), n.value(i)); err != nil {
				return err
			}
			continue
		}
		end := e.end
		if i+1 < n.count() {
			end = n.key(i + 1)
		}
		child := &expectation{pointer: n.child(i), owner: e.owner, name: e.name, first: n.key(i), end: end}
		if err := u.block(t, child); err != nil {
			return err
		}
	}
	return nil
}

func (u *logUse) item(k key, v value) error {
	switch {
	case k.is(csumObject, kindCsum):
		if u.sumBytes += len(v.raw); u.sumBytes > maxLogSums {
			return layer.Unsupported(logName, v.at, logHint, "a log with more than %d bytes of checksums", maxLogSums)
		}
		u.sums = append(u.sums, sumRange{first: k.offset, sums: bytes.Clone(v.raw), at: v.at}) // not to keep the block
	case k.kind == kindExtentData && len(v.raw) == extentItemSize:
		c := newCursor(v.raw)
		c.Seek(extentHeaderSize)
		if r := (addressRange{c.U64(), c.U64()}); r.start != 0 {
			u.ranges = append(u.ranges, r)
		}
	}
	return nil
}

func (u *logUse) sorted() addressRanges {
	slices.SortFunc(u.ranges, func(a, b addressRange) int { return cmp.Compare(a.start, b.start) })
	return u.ranges
}

// sumRanges returns the checksums of all logs, without what two have.
func (u *logUse) sumRanges() (sumRanges, error) {
	sector, size := uint64(u.fs.sb.sectorSize), uint64(u.fs.sb.checksum.size)
	slices.SortStableFunc(u.sums, func(a, b sumRange) int { return cmp.Compare(a.first, b.first) })
	var out sumRanges
	for _, r := range u.sums {
		count := uint64(len(r.sums)) / size
		if uint64(len(r.sums))%size != 0 || r.first%sector != 0 || !ondisk.WithinU(r.first, count*sector, 1<<63) {
			return nil, layer.Damaged(logName, r.at, "the checksums of address %#x have %d bytes", r.first, len(r.sums))
		}
		r.end = r.first + count*sector
		if n := len(out); n > 0 && out[n-1].end > r.first {
			out[n-1].end = r.first
		}
		out = append(out, r)
	}
	return slices.DeleteFunc(out, func(r sumRange) bool { return r.first >= r.end }), nil
}
