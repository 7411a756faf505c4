package qcow2

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// The limits of a snapshot table.
const (
	// maxSnapshots is QEMU's limit.
	maxSnapshots = 65536
	// maxSnapshotExtra is QEMU's limit on the extra data of an entry.
	maxSnapshotExtra = 1024
)

// The fixed part of an entry, the extra data that is known, and the alignment.
const (
	snapshotEntryFixed = 40
	snapshotExtraKnown = 16
	snapshotAlignment  = 8
)

// Snapshot is an internal snapshot of an image. ID and Name are hostile bytes.
type Snapshot struct {
	ID, Name    string
	Time        disk.Time // when it was taken
	GuestTime   uint64    // nanoseconds that the guest had run for
	VMStateSize uint64    // bytes of saved memory and devices; 0: disk only
	Size        int64     // bytes of disk

	l1Offset uint64
	l1Size   uint32
	// sizeKnown: the entry records the disk's size. Where it does not, in old
	// version 2 images, Size is that of the active state.
	sizeKnown bool
}

// readSnapshots reads the snapshot table, entry by entry, since its length is
// not known beforehand.
func readSnapshots(r io.ReaderAt, fileSize int64, h *header) ([]Snapshot, error) {
	if h.nbSnapshots == 0 {
		return nil, nil
	}
	if h.nbSnapshots > maxSnapshots {
		return nil, layer.Beyond("header", 60, "%d snapshots, at most %d is possible", h.nbSnapshots, maxSnapshots)
	}
	if !h.aligned(h.snapshotsOffset) || h.snapshotsOffset < uint64(h.clusterSize()) || !ondisk.WithinU(h.snapshotsOffset, snapshotEntryFixed, uint64(fileSize)) {
		return nil, layer.Damaged("header", 64, "snapshots_offset is %#x, not a cluster of the file", h.snapshotsOffset)
	}
	start := int64(h.snapshotsOffset)
	t := newTableReader("snapshot table", "the file ends", r, start, min(fileSize-start, maxTable))
	var list []Snapshot
	for i := range h.nbSnapshots {
		s, err := readSnapshot(t, h)
		if err != nil {
			return nil, fmt.Errorf("snapshot %d of %d: %w", i+1, h.nbSnapshots, err)
		}
		list = append(list, s)
	}
	return list, nil
}

// readSnapshot reads an entry of the snapshot table, all of it big-endian
// (docs/interop/qcow2.rst, "Snapshots"):
//
//	offset  size
//	     0     8  l1_table_offset
//	     8     4  l1_size, entries
//	    12     2  length of the id
//	    14     2  length of the name
//	    16     4  time taken, seconds since 1970
//	    20     4  its nanoseconds
//	    24     8  nanoseconds that the guest had run for
//	    32     4  size of the VM state, if the extra data does not say
//	    36     4  length of the extra data
//	    40     8  extra: size of the VM state
//	    48     8  extra: size of the disk
//	     …        unknown extra data, id, name, padding to a multiple of 8
func readSnapshot(t *tableReader, h *header) (Snapshot, error) {
	fixed, at, err := t.take(snapshotEntryFixed)
	if err != nil {
		return Snapshot{}, err
	}
	c := ondisk.NewCursor(fixed, binary.BigEndian)
	s := Snapshot{l1Offset: c.U64(), l1Size: c.U32(), Size: h.size}
	idSize, nameSize := int64(c.U16()), int64(c.U16())
	s.Time = disk.Time{Sec: int64(c.U32()), Nsec: c.U32()}
	s.GuestTime = c.U64()
	s.VMStateSize = uint64(c.U32())
	extraSize := int64(c.U32())
	if err := c.Err(); err != nil {
		return Snapshot{}, layer.Damaged("snapshot table", at, "%v", err)
	}
	if s.Time.Nsec > 999_999_999 {
		return Snapshot{}, layer.Damaged("snapshot table", at+20, "the time has %d nanoseconds", s.Time.Nsec)
	}
	if extraSize > maxSnapshotExtra {
		return Snapshot{}, layer.Beyond("snapshot table", at+36, "%d bytes of extra data, at most %d is possible", extraSize, maxSnapshotExtra)
	}
	if h.version >= 3 && extraSize < snapshotExtraKnown {
		return Snapshot{}, layer.Damaged("snapshot table", at+36, "%d bytes of extra data, at least %d is needed", extraSize, snapshotExtraKnown)
	}
	body := extraSize + idSize + nameSize
	rest, _, err := t.take(body)
	if err != nil {
		return Snapshot{}, err
	}
	// The last entry may end without its padding.
	if pad := min(-body&(snapshotAlignment-1), t.length-t.done); pad > 0 {
		if _, _, err := t.take(pad); err != nil {
			return Snapshot{}, err
		}
	}
	s.ID = string(rest[extraSize : extraSize+idSize])
	s.Name = string(rest[extraSize+idSize:])
	return s, s.takeExtra(rest[:extraSize], at, h)
}

// takeExtra takes what the extra data of the entry at offset at says.
func (s *Snapshot) takeExtra(extra []byte, at int64, h *header) error {
	c := ondisk.NewCursor(extra, binary.BigEndian)
	if len(extra) >= 8 {
		s.VMStateSize = c.U64()
	}
	if len(extra) < snapshotExtraKnown {
		return nil
	}
	size := c.U64()
	if limit := MaxL1Bytes / 8 * h.l1Coverage(); size > uint64(limit) {
		return layer.Beyond("snapshot table", at+48, "the disk's size is %d bytes, clusters of %d bytes can map %d", size, h.clusterSize(), limit)
	}
	s.Size = int64(size) / sectorSize * sectorSize
	s.sizeKnown = true
	return nil
}

// snapshotState finds a snapshot by its id, and where none has that id by its
// name, which must then be the name of one only.
func snapshotState(snapshots []Snapshot, want string) (state, error) {
	var found []Snapshot
	for _, s := range snapshots {
		if s.ID == want {
			return s.state(), nil
		}
		if s.Name == want {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 1:
		return found[0].state(), nil
	case 0:
		return state{}, layer.Absent(fmt.Sprintf("snapshot %q", want),
			"the image has %d snapshots, none with this id or name", len(snapshots))
	}
	return state{}, layer.Unsupported(fmt.Sprintf("snapshot %q", want), ondisk.Nowhere, "use the id of one", "%d snapshots have this name", len(found))
}

func (s *Snapshot) state() state {
	return state{
		name:     fmt.Sprintf("L1 table of snapshot %q", s.Name),
		l1Offset: s.l1Offset,
		l1Size:   s.l1Size,
		size:     s.Size,
		// A disk may have grown since; what is new reads as unallocated.
		short: !s.sizeKnown,
	}
}
