package lvm

import (
	"encoding/binary"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	areaHeaderSize = 512
	areaMagic      = " LVM2 x[5A%r0N*>"
	areaVersion    = 1
	flagIgnored    = 1 // of a location: LVM does not use this area

	// MaxText is the largest text of metadata that is read, in bytes. LVM's areas
	// have 1 MiB, which is enough for thousands of volumes.
	MaxText = 4 << 20
)

// areaHeader is the first sector of a metadata area, little-endian (LVM2,
// lib/format_text/layout.h):
//
//	offset  size
//	     0     4  checksum from offset 4 to the end of the sector
//	     4    16  magic
//	    20     4  version, 1
//	    24     8  offset of this area on the device
//	    32     8  size of this area
//	    40    24  location of the committed text
//	    64    24  location of a text that is about to be committed; not used
//
// A location:
//
//	offset  size
//	     0     8  offset in the area, 0: no text
//	     8     8  size in bytes
//	    16     4  checksum of the text
//	    20     4  flags; 1: this area is not in use
//
// The area behind the header is a ring: a text that reaches its end goes on
// behind the header.
type areaHeader struct {
	off, size uint64 // of the area
	text      area   // offset in the area
	check     uint32
	flags     uint32
}

// readText returns the committed text of a metadata area, "" where it has none.
func readText(d disk.Sparse, a area) (string, error) {
	h, err := readAreaHeader(d, a)
	if err != nil {
		return "", err
	}
	if h.text.off == 0 || h.text.size == 0 || h.flags&flagIgnored != 0 {
		return "", nil
	}
	off := int64(a.off)
	if h.text.size > MaxText {
		return "", layer.Beyond("metadata area", off, "the text has %d bytes, at most %d are read", h.text.size, MaxText)
	}
	if h.text.off < areaHeaderSize || h.text.off >= h.size || h.text.size > h.size-areaHeaderSize {
		return "", layer.Damaged("metadata area", off, "%d bytes of text at %d are not within the ring of %d bytes", h.text.size, h.text.off, h.size)
	}
	text := make([]byte, h.text.size) // at most MaxText
	first := min(h.text.size, h.size-h.text.off)
	for _, part := range []struct {
		p  []byte
		at uint64
	}{{text[:first], h.text.off}, {text[first:], areaHeaderSize}} {
		at := off + int64(part.at) // within the device: readAreaHeader has checked
		if err := ondisk.ReadFull(d, part.p, at); err != nil {
			return "", layer.Unreadable("metadata text", at, err)
		}
	}
	if sum := checksum(text); sum != h.check {
		return "", layer.Damaged("metadata text", off+int64(h.text.off), "its checksum is %#x, should be %#x", sum, h.check)
	}
	return string(text), nil
}

func readAreaHeader(d disk.Sparse, a area) (*areaHeader, error) {
	if a.size < areaHeaderSize || !ondisk.WithinU(a.off, a.size, uint64(max(0, d.Size()))) {
		return nil, layer.Damaged("metadata area", ondisk.Nowhere, "%d bytes at %d are not within the device of %d", a.size, a.off, d.Size())
	}
	off := int64(a.off)
	var buf [areaHeaderSize]byte
	if err := ondisk.ReadFull(d, buf[:], off); err != nil {
		return nil, layer.Unreadable("metadata area", off, err)
	}
	c := ondisk.NewCursor(buf[:], binary.LittleEndian)
	check, magic, version := c.U32(), string(c.Bytes(len(areaMagic))), c.U32()
	if magic != areaMagic {
		return nil, layer.Damaged("metadata area", off, "it does not start with the magic number")
	}
	if sum := checksum(buf[4:]); sum != check {
		return nil, layer.Damaged("metadata area", off, "its checksum is %#x, should be %#x", sum, check)
	}
	if version != areaVersion {
		return nil, layer.Unsupported("metadata area", off, imageHint, "version %d; %d is supported", version, areaVersion)
	}
	h := &areaHeader{off: c.U64(), size: c.U64(), text: area{off: c.U64(), size: c.U64()}, check: c.U32(), flags: c.U32()}
	if err := c.Err(); err != nil {
		return nil, layer.Damaged("metadata area", off, "%v", err)
	}
	if h.off != a.off || h.size > a.size || h.size < areaHeaderSize {
		return nil, layer.Damaged("metadata area", off, "it says that it has %d bytes at %d", h.size, h.off)
	}
	return h, nil
}

// metadata is one text that describes a group.
type metadata struct {
	text  string
	root  *section // the group's
	seqno int64
	uuid  string // of the group
}

func parseMetadata(text string) (*metadata, error) {
	root, err := parseText(text)
	if err != nil {
		return nil, err
	}
	d := decoder{}
	if contents := d.str(root, "contents"); d.err == nil && contents != "Text Format Volume Group" {
		return nil, textDamaged(root.off, "it is not that of a volume group")
	}
	if version := d.number(root, "version", 0, maxNumber); d.err == nil && version != 1 {
		return nil, layer.Unsupported(textName, int64(root.off), imageHint, "version %d of the text format; 1 is supported", version)
	}
	group := root.only()
	if group == nil {
		return nil, textDamaged(root.off, "it does not hold exactly one group")
	}
	if !isName(group.name) {
		return nil, textDamaged(group.off, "%.140q is not the name of a group", group.name)
	}
	m := &metadata{text: text, root: group, seqno: d.number(group, "seqno", 0, maxNumber), uuid: d.uuid(group)}
	return m, d.err
}

// physical is a physical volume: its label, and what its areas hold.
type physical struct {
	label
	newest  *metadata // nil where it keeps none
	remarks []string
}

// readPhysical reads the label of d and its metadata. An area that is damaged is
// a remark if another one is good.
func readPhysical(d disk.Sparse) (*physical, error) {
	l, err := readLabel(d)
	if err != nil {
		return nil, err
	}
	p := &physical{label: *l}
	var damage error
	for i, a := range l.areas {
		m, err := readMetadata(d, a)
		if err == nil {
			p.newest, err = newer(p.newest, m)
			if err != nil {
				return nil, err
			}
			continue
		}
		damage = err
		p.remarks = append(p.remarks, fmt.Sprintf("metadata area %d of physical volume %s is not used: %v", i+1, formatUUID(l.uuid), err))
	}
	if damage != nil && p.newest == nil {
		return p, damage
	}
	return p, nil
}

// readMetadata returns nil where an area has no text.
func readMetadata(d disk.Sparse, a area) (*metadata, error) {
	text, err := readText(d, a)
	if err != nil || text == "" {
		return nil, err
	}
	return parseMetadata(text)
}

// newer returns the newer of two, either of which may be nil. Two that are
// equally new must not differ.
func newer(a, b *metadata) (*metadata, error) {
	switch {
	case a == nil:
		return b, nil
	case b == nil:
		return a, nil
	case a.uuid != b.uuid:
		return nil, layer.Damaged(textName, ondisk.Nowhere, "it is that of group %s here and of group %s there", formatUUID(a.uuid), formatUUID(b.uuid))
	case a.seqno == b.seqno && a.text != b.text:
		return nil, layer.Damaged(textName, ondisk.Nowhere, "two texts with sequence number %d differ", a.seqno)
	case b.seqno > a.seqno:
		return b, nil
	}
	return a, nil
}
