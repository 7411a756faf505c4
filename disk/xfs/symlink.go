package xfs

import (
	"bytes"
	"encoding/binary"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// symlinkHeader is the size of the header that version 5 has before a symlink's
// target, and before each block of an attribute's value ("Symbolic Links"):
//
//	0 4 magic   4 4 offset in the target   8 4 bytes of it   12 4 checksum
//	16 16 uuid  32 8 owner   40 8 sector   48 8 lsn
const symlinkHeader = 56

func symlinkName(ino uint64) place { return place{"symlink", ino} }

// Readlink implements [disk.Filesystem].
func (fs *Filesystem) Readlink(ino uint64) ([]byte, error) {
	n, err := fs.file(ino)
	if err != nil {
		return nil, err
	}
	if n.Type() != disk.ModeSymlink {
		return nil, layer.Absent(inodeName(ino), "mode %#o is not a symlink", n.Mode)
	}
	if n.Size == 0 || n.Size > maxSymlink {
		return nil, layer.Damaged(symlinkName(ino).String(), ondisk.Nowhere, "a target of %d bytes, 1 to %d are possible", n.Size, maxSymlink)
	}
	if err := fs.intents.refuseContent(ino); err != nil {
		return nil, err
	}
	target := make([]byte, 0, n.Size)
	if n.data.format == formatLocal {
		target = append(target, n.data.raw[:n.Size]...)
	} else if target, err = fs.remoteTarget(n, target); err != nil {
		return nil, err
	}
	if bytes.IndexByte(target, 0) >= 0 {
		return nil, layer.Damaged(symlinkName(ino).String(), ondisk.Nowhere, "the target has a NUL in it")
	}
	return target, nil
}

// remoteTarget reads a target from the symlink's blocks. In version 5 each run
// of blocks has one header and one checksum.
func (fs *Filesystem) remoteTarget(n *inode, target []byte) ([]byte, error) {
	m := newMapping(fs, n, n.data)
	header := uint64(0)
	if fs.sb.checksummed {
		header = symlinkHeader
	}
	room := uint64(fs.sb.blockSize()) - header
	blocks := (uint64(n.Size) + room - 1) / room
	for block := uint64(0); len(target) < int(n.Size); {
		s, err := m.at(block)
		if err != nil {
			return nil, err
		}
		if s.kind != disk.ExtentData || block >= blocks {
			return nil, layer.Damaged(symlinkName(n.Ino).String(), ondisk.Nowhere, "%d of %d bytes have blocks", len(target), n.Size)
		}
		s.length = min(s.length, blocks-block)
		data, err := fs.targetPart(n, s, len(target))
		if err != nil {
			return nil, err
		}
		target = append(target, data[:min(len(data), int(n.Size)-len(target))]...)
		block += s.length
	}
	return target, nil
}

// targetPart returns what a run of blocks holds of a target, from byte at on.
func (fs *Filesystem) targetPart(n *inode, s stretch, at int) ([]byte, error) {
	off, length := fs.sb.offset(s.physical), int(s.length)<<fs.sb.blockShift
	if !fs.sb.checksummed {
		data := make([]byte, length)
		if _, err := fs.dev.readAt(data, off); err != nil {
			return nil, layer.Unreadable(symlinkName(n.Ino).String(), off, err)
		}
		return data, nil
	}
	data, err := fs.block(symlinkForm, off, length, n.Ino, symlinkName(n.Ino))
	if err != nil {
		return nil, err
	}
	want := min(length-symlinkHeader, int(n.Size)-at)
	if offset, bytes := binary.BigEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[8:]); int64(offset) != int64(at) || int64(bytes) != int64(want) {
		return nil, layer.Damaged(symlinkName(n.Ino).String(), off, "%d bytes from %d on, where %d from %d on are due", bytes, offset, want, at)
	}
	return data[symlinkHeader:], nil
}
