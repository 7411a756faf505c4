package btrfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
)

// Where the fields of an extent item are that change when a part of it goes.
const (
	extentOffsetField = 0x25
	extentLengthField = 0x2d
)

// replayExtent replays an extent: what was there before goes.
func (r *replayer) replayExtent(k key, v value) error {
	n, err := r.inode(k.object)
	if err != nil {
		return err
	}
	if n.raw == nil {
		return r.damaged(k.object, v.at, "it has extents, but is not there")
	}
	e, err := (&inode{volume: r.s, object: k.object}).parseExtent(k.offset, v)
	if err != nil {
		return fmt.Errorf("%s: %w", logName, err)
	}
	old, err := r.s.get(k)
	if err != nil || bytes.Equal(old.raw, v.raw) && e.inline == nil {
		return err
	}
	if err := r.dropExtents(k.object, uint64(e.start), uint64(e.end)); err != nil {
		return err
	}
	if e.kind == disk.ExtentHole && r.s.sb.incompat&incompatNoHoles != 0 {
		return nil
	}
	return r.put(k, v)
}

// oldExtent is an extent of the subvolume that is to lose a part.
type oldExtent struct {
	extent
	raw []byte
}

// dropExtents takes the range from start to end out of a file, as far as there are
// extents.
func (r *replayer) dropExtents(object, start, end uint64) error {
	list, err := r.overlapping(object, start, end)
	if err != nil {
		return err
	}
	for _, old := range list {
		if err := r.dropPart(object, old, start, end); err != nil {
			return err
		}
	}
	return nil
}

// overlapping returns the extents of a file that reach into a range.
func (r *replayer) overlapping(object, start, end uint64) ([]oldExtent, error) {
	n := &inode{volume: r.s, object: object}
	from := uint64(0)
	if start > 0 {
		var err error
		if from, err = r.s.before(object, kindExtentData, start); err != nil {
			return nil, err
		}
	}
	var list []oldExtent
	err := r.s.items(object, kindExtentData, from, func(at uint64, v value) error {
		if at >= end {
			return errEnough
		}
		if err := r.look(v.raw); err != nil {
			return err
		}
		e, err := n.parseExtent(at, v)
		if err != nil {
			return err
		}
		if uint64(e.end) <= start {
			return nil
		}
		list = append(list, oldExtent{e, v.raw})
		return r.spend(0)
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	return list, nil
}

// dropPart leaves of an extent what lies before start and from end on.
func (r *replayer) dropPart(object uint64, old oldExtent, start, end uint64) error {
	k := key{object, kindExtentData, uint64(old.start)}
	before, after := k.offset < start, uint64(old.end) > end
	if (before || after) && old.inline != nil {
		return layer.Unsupported(logName+" of "+inodeName(r.s.id, object), old.at, logHint, "a part of an inline extent is replaced")
	}
	if after {
		n := bytes.Clone(old.raw)
		binary.LittleEndian.PutUint64(n[extentLengthField:], uint64(old.end)-end)
		if old.logical != 0 {
			binary.LittleEndian.PutUint64(n[extentOffsetField:], old.offset+end-k.offset)
		}
		if err := r.put(key{object, kindExtentData, end}, value{n, old.at}); err != nil {
			return err
		}
	}
	if !before {
		return r.remove(k)
	}
	n := bytes.Clone(old.raw)
	binary.LittleEndian.PutUint64(n[extentLengthField:], start-k.offset)
	return r.put(k, value{n, old.at})
}
