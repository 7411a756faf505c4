package btrfs

import (
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/cache"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// volume is the devices of a filesystem as one space of logical addresses.
type volume struct {
	sb      *superblock
	devices []device
	chunks  chunkMap
	nodes   *cache.Cache[uint64] // verified tree blocks, by logical address
}

// deviceOf returns the index of the device that a stripe names, or -1.
func (v *volume) deviceOf(id uint64, uuid [16]byte) int {
	for i := range v.devices {
		if d := &v.devices[i]; d.item.id == id && d.item.uuid == uuid && !d.stale {
			return i
		}
	}
	return -1
}

// bootstrap reads the chunks of the superblock, which hold the tree of all
// chunks, and then that.
//
// Layout of sys_chunk_array: a key and a chunk by turns.
func (v *volume) bootstrap() error {
	for rest := v.sb.systemChunks; len(rest) > 0; {
		if len(rest) < keySize+chunkHeaderSize {
			return sbDamaged("sys_chunk_array ends within a chunk")
		}
		k := keyAt(rest)
		stripes := int(rest[keySize+0x2c]) | int(rest[keySize+0x2d])<<8
		size := keySize + chunkHeaderSize + stripes*stripeItemSize
		if !k.is(firstChunk, kindChunk) || size > len(rest) {
			return sbDamaged("sys_chunk_array holds %v of %d bytes", k, size)
		}
		c, err := v.parseChunk(k.offset, rest[keySize:size])
		if err != nil {
			return err
		}
		if err := v.chunks.add(c); err != nil {
			return err
		}
		rest = rest[size:]
	}
	return v.readChunkTree()
}

// readChunkTree replaces the map by that of the chunk tree, and compares the
// devices with those that the filesystem says it has.
func (v *volume) readChunkTree() error {
	t := &tree{volume: v, name: "chunk tree", owner: chunkTree, root: v.sb.chunkRoot}
	var all chunkMap
	known := make(map[uint64]bool)
	var w walk
	for err := t.seek(&w, key{}); ; err = w.next() {
		if err != nil {
			return err
		}
		if !w.valid() {
			break
		}
		switch k := w.key(); {
		case k.is(deviceItems, kindDevice):
			if err := v.checkDevice(k.offset, w.value()); err != nil {
				return err
			}
			known[k.offset] = true
			if len(known) > maxDevices {
				return layer.Damaged("chunk tree", offsetOf(v.sb.chunkRoot.block), "it knows more than %d devices", maxDevices)
			}
		case k.is(firstChunk, kindChunk):
			c, err := v.parseChunk(k.offset, w.value().raw)
			if err != nil {
				return err
			}
			if err := all.add(c); err != nil {
				return err
			}
		}
	}
	for i := range v.devices {
		if d := &v.devices[i]; !known[d.item.id] {
			d.stale = true // the target of a replacement that was under way
		}
	}
	v.chunks = all
	return v.checkComplete()
}

// checkDevice compares a device item of the chunk tree with the device given.
func (v *volume) checkDevice(id uint64, found value) error {
	name := fmt.Sprintf("device item %d", id)
	if len(found.raw) != deviceItemSize {
		return layer.Damaged(name, found.at, "it has %d bytes, not %d", len(found.raw), deviceItemSize)
	}
	item := parseDeviceItem(newCursor(found.raw))
	if item.fsid != v.sb.metadataFSID {
		return layer.Unsupported(name, found.at, "back these disks up as images", "it is a seed device (seeding) of filesystem %s", formatUUID(item.fsid))
	}
	if item.id != id {
		return layer.Damaged(name, found.at, "it says that it is of device %d", item.id)
	}
	for i := range v.devices {
		if d := &v.devices[i]; d.item.id == id && d.item.uuid != item.uuid {
			return layer.Damaged(deviceName(i), superblockOffset, "the filesystem has another device %d: this one was replaced", id)
		}
	}
	return nil
}

// checkComplete refuses a filesystem of which a device is missing, unless there
// is another copy of all that lies on it.
func (v *volume) checkComplete() error {
	for _, c := range v.chunks.chunks {
		for column := range c.columns {
			present := false
			for _, s := range c.stripes[column*c.copies : (column+1)*c.copies] {
				present = present || s.device >= 0
			}
			if !present {
				id := c.stripes[column*c.copies].id
				return layer.Damaged(chunkName(c.logical), offsetOf(c.logical),
					"device %d is missing or out of date, and nothing else has what lies on it: give all %d devices", id, v.sb.deviceCount)
			}
		}
	}
	return nil
}

// missing are the IDs of devices that chunks use and that are not there.
func (v *volume) missing() (ids []uint64) {
	seen := make(map[uint64]bool)
	for _, c := range v.chunks.chunks {
		for _, s := range c.stripes {
			if s.device < 0 && !seen[s.id] && len(seen) < maxDevices {
				seen[s.id] = true
				ids = append(ids, s.id)
			}
		}
	}
	return ids
}

// chunkOf returns the chunk that holds length bytes from a logical address.
func (v *volume) chunkOf(logical, length uint64, what string) (*chunk, error) {
	if c := v.chunks.find(logical, length); c != nil {
		return c, nil
	}
	return nil, layer.Damaged(what, offsetOf(logical), "%d bytes at address %#x are in no chunk", length, logical)
}

// missingDevice is the error of a read from a device, by its ID, that is not there.
type missingDevice uint64

func (m missingDevice) Error() string { return fmt.Sprintf("device %d is missing", uint64(m)) }

// unreadable is the error of a structure that [volume.readCopy] could not read.
func unreadable(structure string, off int64, err error) error {
	var missing missingDevice
	if errors.As(err, &missing) {
		return &disk.Error{
			Layer: layer.Name, Structure: structure, Offset: off, Err: disk.ErrCorrupt,
			Detail: missing.Error(), Hint: "give all devices of the filesystem",
		}
	}
	return layer.Unreadable(structure, off, err)
}

// readCopy fills p from a logical address of chunk c, from one of its copies.
func (v *volume) readCopy(p []byte, c *chunk, logical uint64, copy int) error {
	for off := logical - c.logical; len(p) > 0; {
		s, at, n := c.piece(off, copy)
		n = min(n, uint64(len(p)))
		if s.device < 0 {
			return missingDevice(s.id)
		}
		if err := ondisk.ReadFull(v.devices[s.device].disk, p[:n], int64(at)); err != nil {
			return fmt.Errorf("device %d at %#x: %w", s.id, at, err)
		}
		p = p[n:]
		off += n
	}
	return nil
}
