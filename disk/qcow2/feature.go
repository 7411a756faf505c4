package qcow2

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// checkFeatures refuses what the reader does not do. The bits that it knows are
// an allow-list.
func checkFeatures(h *header) error {
	switch h.cryptMethod {
	case 0:
	case 1:
		return refuse(32, "AES encryption", "decrypt a copy with `qemu-img convert`, or encrypt inside the guest")
	case 2:
		return refuse(32, "LUKS encryption", "decrypt a copy with `qemu-img convert`, or encrypt inside the guest")
	default:
		return refuse(32, fmt.Sprintf("encryption method %d", h.cryptMethod), "")
	}
	const known = incompatDirty | incompatCorrupt | incompatDataFile | incompatCompression | incompatExtendedL2
	if unknown := h.incompatible &^ known; unknown != 0 {
		return refuse(72, fmt.Sprintf("incompatible feature bit %d", bits.TrailingZeros64(unknown)), "")
	}
	if h.incompatible&incompatCorrupt != 0 {
		return layer.Damaged("header", 72, "QEMU has marked the image as corrupt")
	}
	if h.incompatible&incompatDataFile != 0 {
		return refuse(72, "an external data file", "make the image self-contained with `qemu-img convert -O qcow2`")
	}
	// The other autoclear bits concern writers, and parts that are not read.
	if h.autoclear&autoclearRawData != 0 {
		return layer.Damaged("header", 88, "the external data file is said to be raw, but there is none")
	}
	return checkCompression(h)
}

func checkCompression(h *header) error {
	flagged := h.incompatible&incompatCompression != 0
	switch {
	case h.compression > compressionZstd:
		return refuse(104, fmt.Sprintf("compression type %d", h.compression), "")
	case flagged && h.compression == compressionZlib:
		return layer.Damaged("header", 104, "a compression type other than zlib is announced, but there is none")
	case !flagged && h.compression != compressionZlib:
		return layer.Damaged("header", 104, "the compression type is %s, but its feature bit is not set", h.compression)
	}
	return nil
}

func refuse(off int64, feature, hint string) error {
	return layer.Unsupported("header", off, hint, "the image uses %s", feature)
}

// The types of header extension.
const (
	extensionEnd           = 0
	extensionBackingFormat = 0xe2792aca
)

// readExtensions walks the header extensions, which lie between the header and
// the backing file's name or the end of the first cluster:
//
//	offset  size
//	     0     4  type; 0 ends the list
//	     4     4  length of the data
//	     8     n  data, padded to a multiple of 8
//
// All that reading needs of them is the backing file's format.
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
		if kind == extensionBackingFormat {
			if len(data) > maxFormatName {
				return layer.Damaged("backing file format", at, "a name of %d bytes", len(data))
			}
			h.backingFormat = string(data)
		}
	}
	return nil
}

// readBackingName reads the name of the backing file. It is for people to read,
// and for the configuration to be compared with; no path is opened for it.
func (h *header) readBackingName(r io.ReaderAt, fileSize int64) error {
	if h.backingOffset == 0 {
		return nil
	}
	if h.backingSize == 0 || h.backingSize > maxBackingName {
		return layer.Damaged("header", 16, "backing_file_size is %d, only 1 to %d is possible", h.backingSize, maxBackingName)
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
