package iso9660

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	firstDescriptor = 16 * sectorSize
	// maxDescriptors bounds the set of volume descriptors, which only its last
	// member ends. Real ones have three or four.
	maxDescriptors = 64
)

// The types of volume descriptors.
const (
	typePrimary       = 1
	typeSupplementary = 2
	typeTerminator    = 255
)

// descriptor is a primary or supplementary volume descriptor.
//
// Layout (ECMA-119, sections 8.4 and 8.5); of "both" numbers the little-endian one
// comes first:
//
//	  0   1 type
//	  1   5 "CD001"
//	  6   1 version, 1
//	  7   1 flags, of a supplementary one
//	 40  32 volume identifier
//	 80   8 blocks of the volume, both
//	 88  32 escape sequences, of a supplementary one
//	128   4 logical block size, both
//	156  34 directory record of the root
//	813  17 when the volume was made: 16 digits and a time zone
//	830  17 when it was changed, likewise
type descriptor struct {
	off       int64
	joliet    bool
	label     []byte
	blocks    uint32
	blockSize int64
	date      [16]byte // digits; zero where there are none
}

// Recognise reports whether d has the primary volume descriptor of an ISO 9660
// image.
func Recognise(d disk.Sparse) (bool, error) {
	var head [7]byte
	if err := ondisk.ReadFull(d, head[:], firstDescriptor); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil // too small for one
		}
		return false, layer.Unreadable("volume descriptor", firstDescriptor, err)
	}
	return isDescriptor(head[:]) && head[0] == typePrimary, nil
}

func isDescriptor(raw []byte) bool { return string(raw[1:6]) == "CD001" && raw[6] == 1 }

// readDescriptors returns the primary descriptor, and that of Joliet if there is one.
func readDescriptors(dev *ondisk.Pages) (primary, joliet *descriptor, err error) {
	for i := range int64(maxDescriptors) {
		off := firstDescriptor + i*sectorSize
		raw := make([]byte, sectorSize)
		if err := ondisk.ReadFull(dev.Disk, raw, off); err != nil {
			return nil, nil, layer.Unreadable("volume descriptor", off, err)
		}
		if !isDescriptor(raw) {
			if primary == nil {
				return nil, nil, layer.Damaged("volume descriptor", off, "it does not start with CD001 and version 1")
			}
			return primary, joliet, nil // as Linux does where the terminator is missing
		}
		switch {
		case raw[0] == typePrimary && primary == nil:
			if primary, err = parseDescriptor(raw, off); err != nil {
				return nil, nil, err
			}
		case raw[0] == typeSupplementary && isJoliet(raw) && joliet == nil:
			if joliet, err = parseDescriptor(raw, off); err != nil {
				return nil, nil, err
			}
		case raw[0] == typeTerminator:
			if primary == nil {
				return nil, nil, layer.Damaged("volume descriptor", off, "the set of descriptors ends without a primary one")
			}
			return primary, joliet, nil
		}
	}
	return nil, nil, layer.Beyond("volume descriptor", firstDescriptor, "more than %d of them", maxDescriptors)
}

// isJoliet looks for one of the escape sequences for UCS-2 of level 1 to 3 (Joliet
// specification, "Escape Sequences Field").
func isJoliet(raw []byte) bool {
	return raw[88] == '%' && raw[89] == '/' && slices.Contains([]byte{'@', 'C', 'E'}, raw[90])
}

func parseDescriptor(raw []byte, off int64) (*descriptor, error) {
	le := binary.LittleEndian
	d := &descriptor{off: off, joliet: raw[0] == typeSupplementary, blocks: le.Uint32(raw[80:]), blockSize: int64(le.Uint16(raw[128:]))}
	if !slices.Contains([]int64{512, 1024, 2048}, d.blockSize) {
		return nil, layer.Damaged("volume descriptor", off, "logical blocks of %d bytes; 512, 1024 and 2048 are possible", d.blockSize)
	}
	if d.joliet {
		d.label = []byte(decodeUCS2(raw[40:72]))
	} else {
		d.label = raw[40:72]
	}
	if i := bytes.IndexByte(d.label, 0); i >= 0 {
		d.label = d.label[:i]
	}
	d.label = bytes.Clone(bytes.TrimRight(d.label, " "))
	d.date = Date(raw)
	return d, nil
}

// Date returns what tools take for the UUID of the volume that a primary volume
// descriptor describes: the 16 digits of when it was changed or, if it does not say, was
// made. Zero stands for neither.
func Date(descriptor []byte) (digits [16]byte) {
	for _, at := range []int{830, 813} {
		s := string(descriptor[at:][:len(digits)])
		if strings.Trim(s, "0123456789") == "" && strings.Trim(s, "0") != "" {
			return [16]byte([]byte(s))
		}
	}
	return digits
}

// decodeUCS2 turns big-endian UCS-2 to UTF-8. Half a character at the end is left
// out. Pairs of surrogates, which the format does not know, are taken for UTF-16, as
// those who write them mean it.
func decodeUCS2(raw []byte) string {
	units := make([]uint16, len(raw)/2)
	for i := range units {
		units[i] = binary.BigEndian.Uint16(raw[2*i:])
	}
	return string(utf16.Decode(units))
}
