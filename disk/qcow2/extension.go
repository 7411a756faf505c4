package qcow2

import (
	"encoding/binary"
	"io"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// The types of header extension that are read. All others are skipped, as the
// format asks.
const (
	extensionEnd           = 0
	extensionBackingFormat = 0xe2792aca
	extensionDataFile      = 0x44415441
	extensionBitmaps       = 0x23852875
)

const (
	// maxExtensionArea is how far into the first cluster header extensions
	// are read: QEMU's, feature name table and all, take less than 2 KiB.
	maxExtensionArea = 64 << 10
	// maxFormatName is longer than any name of a format.
	maxFormatName = 32
	// maxFileName is the format's limit on a backing file's name; QEMU has the
	// same for a data file's.
	maxFileName = 1023
)

// readExtensions walks the header extensions, which lie between the header and
// the backing file's name or the end of the first cluster (docs/interop/
// qcow2.rst, "Header extensions"):
//
//	offset  size
//	     0     4  type; 0 ends the list
//	     4     4  length of the data
//	     8     n  data, padded to a multiple of 8
func (h *header) readExtensions(r io.ReaderAt, fileSize int64) error {
	end := min(h.clusterSize(), maxExtensionArea, fileSize)
	if h.backingOffset != 0 {
		end = min(end, int64(min(h.backingOffset, maxExtensionArea)))
	}
	start := int64(h.length)
	if end <= start {
		return nil
	}
	buf := make([]byte, end-start)
	if err := ondisk.ReadFull(r, buf, start); err != nil {
		return layer.Unreadable("header extensions", start, err)
	}
	c := ondisk.NewCursor(buf, binary.BigEndian)
	for c.Offset()+8 <= len(buf) {
		at := start + int64(c.Offset())
		kind, length := c.U32(), c.U32()
		if int64(length) > end-at-8 {
			return layer.Damaged("header extension", at, "%d bytes long, but its area ends after %d", length, end-at-8)
		}
		if kind == extensionEnd {
			return nil
		}
		data := c.Bytes(int(length))
		if pad := -int(length) & 7; c.Offset()+pad <= len(buf) {
			c.Skip(pad)
		}
		if err := h.takeExtension(kind, data, at); err != nil {
			return err
		}
	}
	return nil
}

// takeExtension takes what the extension at offset at of the file says.
func (h *header) takeExtension(kind uint32, data []byte, at int64) error {
	switch kind {
	case extensionBackingFormat:
		if len(data) > maxFormatName {
			return layer.Damaged("backing file format", at, "a name of %d bytes", len(data))
		}
		h.backingFormat = string(data)
	case extensionDataFile:
		if len(data) > maxFileName {
			return layer.Damaged("data file name", at, "a name of %d bytes", len(data))
		}
		h.dataFile = string(data)
	case extensionBitmaps:
		h.bitmaps = parseBitmapExtension(data, at)
	}
	return nil
}

// readBackingName reads the name of the backing file. It is for people to read,
// and for the configuration to be compared with; no path is opened for it.
func (h *header) readBackingName(r io.ReaderAt, fileSize int64) error {
	if h.backingOffset == 0 {
		return nil
	}
	if h.autoclear&autoclearRawData != 0 {
		return layer.Damaged("header", 8, "there is a backing file, but the external data file is said to be all of the disk")
	}
	if h.backingSize == 0 || h.backingSize > maxFileName {
		return layer.Damaged("header", 16, "backing_file_size is %d, only 1 to %d is possible", h.backingSize, maxFileName)
	}
	first := uint64(min(h.clusterSize(), fileSize))
	if h.backingOffset < uint64(h.length) || !ondisk.WithinU(h.backingOffset, uint64(h.backingSize), first) {
		return layer.Damaged("header", 8, "the backing file's name, %d bytes at %#x, is not in the rest of the first cluster", h.backingSize, h.backingOffset)
	}
	name := make([]byte, h.backingSize)
	if err := ondisk.ReadFull(r, name, int64(h.backingOffset)); err != nil {
		return layer.Unreadable("backing file name", int64(h.backingOffset), err)
	}
	h.backingFile = string(name)
	return nil
}
