package qcow2

import (
	"fmt"
	"math/bits"
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
	// Autoclear bits that are not known concern writers.
	if h.autoclear&autoclearRawData != 0 && !h.external() {
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
