package layout

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"

	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/fat"
	"github.com/drydock-vm/drydock/disk/iso9660"
	"github.com/drydock-vm/drydock/disk/lvm"
	"github.com/drydock-vm/drydock/disk/xfs"
)

// The contents that are treated in a way of their own.
const (
	contentLVM        = "LVM2_member"
	contentSwap       = "swap"
	contentBtrfs      = "btrfs"
	contentXFS        = "xfs"
	contentFAT        = "vfat"
	contentISO        = "iso9660"
	contentHibernated = "swsuspend"
)

const titleISO = "an ISO 9660 image"

// containers hold other volumes. They are looked for in this order, and the first
// that is found hides all else: it may well begin as what is in it does.
var containers = []*signature{
	{content: "linux_raid_member", title: "a member of a Linux software RAID (md)", detect: detectMD, atEnd: true},
	{content: "bcache", title: "a bcache device", detect: detectBcache},
	{content: contentLVM, title: "an LVM physical volume", recognise: lvm.Recognise, harmless: true},
	{content: "crypto_LUKS", title: "a LUKS container", detect: detectLUKS},
}

// filesystems exclude each other. They are in the order of blkid.
var filesystems = []*signature{
	{content: contentFAT, title: "a FAT filesystem", recognise: fat.Recognise, open: openFAT},
	{content: contentHibernated, title: "a hibernated system", detect: detectHibernated, harmless: true},
	{content: contentSwap, title: "swap space", detect: detectSwap, harmless: true},
	{content: contentXFS, title: "an XFS filesystem", recognise: xfs.Recognise, details: xfsDetails, open: openXFS},
	{content: "ext4", title: "an ext2, ext3 or ext4 filesystem", recognise: ext4.Recognise, details: extDetails, open: openExt4},
	{content: contentISO, title: titleISO, recognise: iso9660.Recognise, details: isoDetails, open: openISO, hybrid: true},
	{content: "zfs_member", title: "a member of a ZFS pool", detect: detectZFS},
	{content: contentBtrfs, title: "a btrfs filesystem", recognise: btrfs.Recognise, open: openBtrfs},
	{content: "bcachefs", title: "a bcachefs filesystem", detect: detectBcachefs},
	{content: "ntfs", title: "an NTFS filesystem", detect: detectNTFS},
	{content: "exfat", title: "an exFAT filesystem", detect: detectExFAT},
	{content: "f2fs", title: "an F2FS filesystem", detect: detectF2FS},
	{content: "squashfs", title: "a squashfs image", at: 0, magic: "hsqs"},
	{content: "erofs", title: "an EROFS image", detect: detectEROFS},
	{content: "reiserfs", title: "a ReiserFS filesystem", at: 0x10034, magic: "ReIsEr"},
	{content: "jfs", title: "a JFS filesystem", at: 32 << 10, magic: "JFS1"},
	{content: "apfs", title: "an APFS container", at: 32, magic: "NXSB"},
}

// trim returns a copy of a padded label, without its padding.
func trim(p []byte) []byte {
	if i := bytes.IndexByte(p, 0); i >= 0 {
		p = p[:i]
	}
	return bytes.Clone(bytes.TrimRight(p, " "))
}

// setUUID takes a UUID from where it lies.
func (id *identity) setUUID(p []byte) {
	if len(p) == 16 && [16]byte(p) != [16]byte{} {
		id.uuid = formatUUID([16]byte(p))
	}
}

const mdMagic = 0xa92b4efc

// detectMD recognises md metadata. Version 1 is 8 to 12 KiB before the end (1.0),
// at the start (1.1) or at 4 KiB (1.2), little-endian (include/uapi/linux/raid/md_p.h
// of Linux):
//
//	offset  size
//	     0     4  A92B4EFC
//	     4     4  1
//	    16    16  UUID of the array
//	    32    32  name of the array
//	   144     8  sector of this structure
//
// Version 0.90 is in the last 64 KiB block but one, in the byte order of the
// machine:
//
//	 0     4  A92B4EFC
//	 4     4  0
//	 8     4  90
//	20     4  UUID of the array, and the rest of it at 52
func detectMD(e *ends, id *identity) bool {
	size := e.d.Size()
	for _, off := range []int64{(size/512 - 16) &^ 7 * 512, 0, 4096} {
		p := e.at(off, 256)
		if p == nil || binary.LittleEndian.Uint32(p) != mdMagic || binary.LittleEndian.Uint32(p[4:]) != 1 ||
			binary.LittleEndian.Uint64(p[144:]) != uint64(off/512) {
			continue
		}
		id.setUUID(p[16:32])
		id.label = trim(p[32:64])
		return true
	}
	p := e.at(size&^(64<<10-1)-64<<10, 64)
	if p == nil {
		return false
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if order.Uint32(p) == mdMagic && order.Uint32(p[4:]) == 0 && order.Uint32(p[8:]) == 90 {
			var u []byte
			for _, at := range []int{20, 52, 56, 60} {
				u = binary.BigEndian.AppendUint32(u, order.Uint32(p[at:]))
			}
			id.setUUID(u)
			return true
		}
	}
	return false
}

// The superblocks of bcache and bcachefs lie in sector 8, and are of one family
// (bch_sb in fs/bcachefs/bcachefs_format.h of Linux):
//
//	offset  size
//	     8     8  of bcache: the sector, 8
//	    24    16  magic
//	    40    16  UUID of the device
//	    56    16  UUID of the set, or the filesystem's
//	    72    32  label
const (
	bcacheAt      = 4096
	bcacheMagic   = "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"
	bcachefsMagic = "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"
)

func detectBcache(e *ends, id *identity) bool {
	p := e.at(bcacheAt, 104)
	if p == nil || string(p[24:40]) != bcacheMagic || binary.LittleEndian.Uint64(p[8:]) != bcacheAt/512 {
		return false
	}
	id.setUUID(p[40:56])
	return true
}

func detectBcachefs(e *ends, id *identity) bool {
	p := e.at(bcacheAt, 104)
	if p == nil || string(p[24:40]) != bcachefsMagic {
		return false
	}
	id.setUUID(p[56:72])
	id.label = trim(p[72:104])
	return true
}

// hasLVMLabel looks for a label in the first four sectors, whatever its checksum.
func hasLVMLabel(e *ends) bool {
	for off := int64(0); off < 4*512; off += 512 {
		if e.has(off, "LABELONE") && e.has(off+24, "LVM2 001") {
			return true
		}
	}
	return false
}

// detectLUKS recognises both versions (LUKS1 and LUKS2 On-Disk Format
// Specifications), big-endian:
//
//	offset  size
//	     0     6  "LUKS" BA BE
//	     6     2  version
//	    24    48  of version 2: label
//	   168    40  UUID as text
//
// Of version 2 there is a copy, which begins with "SKUL" and has its own offset
// at 256. Tools use it where the first is destroyed.
func detectLUKS(e *ends, id *identity) bool {
	if e.has(0, "LUKS\xba\xbe") {
		return takeLUKS(e.at(0, 264), id)
	}
	for off := int64(16 << 10); off < headSize; off *= 2 {
		if p := e.at(off, 264); p != nil && string(p[:6]) == "SKUL\xba\xbe" && binary.BigEndian.Uint64(p[256:]) == uint64(off) {
			return takeLUKS(p, id)
		}
	}
	return false
}

func takeLUKS(p []byte, id *identity) bool {
	if p == nil {
		return false
	}
	if binary.BigEndian.Uint16(p[6:]) == 2 {
		id.label = trim(p[24:72])
	}
	if uuid := string(trim(p[168:208])); isPrintableUUID(uuid) {
		id.uuid = uuid
	}
	return true
}

// isPrintableUUID reports whether a UUID that a disk keeps as text is one.
func isPrintableUUID(s string) bool {
	return len(s) == 36 && strings.Trim(s, "0123456789abcdefABCDEF-") == ""
}

// detectZFS looks for the uberblocks in the first label: a ring of 128 of them at
// 128 KiB, of which a few have been written (ZFS On-Disk Specification, chapter
// 1). blkid wants four, on a device of at least 64 MiB.
func detectZFS(e *ends, _ *identity) bool {
	const (
		ring, ringEnd, step = 128 << 10, 256 << 10, 1 << 10
		magic               = 0x00bab10c
		wanted              = 4
		leastSize           = 64 << 20
	)
	if e.d.Size() < leastSize {
		return false
	}
	found := 0
	for off := int64(ring); off < ringEnd; off += step {
		if p := e.at(off, 8); p != nil && (binary.LittleEndian.Uint64(p) == magic || binary.BigEndian.Uint64(p) == magic) {
			found++
		}
	}
	return found >= wanted
}

// pageSizes are those of the machines that Linux runs on: the magic of swap space
// is at the end of the first page.
var pageSizes = []int64{4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10}

// detectHibernated recognises swap space that holds the image of a system.
func detectHibernated(e *ends, id *identity) bool {
	for _, page := range pageSizes {
		for _, magic := range []string{"S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "\xed\xc3\x02\xe9\x98\x56\xe5\x0c", "LINHIB0001"} {
			if e.has(page-10, magic) {
				id.setSwap(e)
				return true
			}
		}
	}
	return false
}

// detectSwap recognises both versions of swap space; the newer one has a header
// (union swap_header in include/linux/swap.h of Linux):
//
//	offset  size
//	  1024     4  1, in the byte order of the machine
//	  1028     4  last page
//	  1036    16  UUID
//	  1052    16  label
func detectSwap(e *ends, id *identity) bool {
	for _, page := range pageSizes {
		if e.has(page-10, "SWAP-SPACE") {
			return true
		}
		if p := e.at(1024, 8); e.has(page-10, "SWAPSPACE2") && p != nil && (p[0] == 1 || p[3] == 1) && string(p[4:]) != "\x00\x00\x00\x00" {
			id.setSwap(e)
			return true
		}
	}
	return false
}

// setSwap takes what the header of swap space has.
func (id *identity) setSwap(e *ends) {
	if p := e.at(1036, 32); p != nil {
		id.setUUID(p[:16])
		id.label = trim(p[16:])
	}
}

// detectNTFS also takes the serial number, at 72.
func detectNTFS(e *ends, id *identity) bool {
	p := e.at(0, 80)
	if p == nil || string(p[3:11]) != "NTFS    " {
		return false
	}
	id.uuid = fmt.Sprintf("%016X", binary.LittleEndian.Uint64(p[72:]))
	return true
}

// detectExFAT also takes the serial number, at 100.
func detectExFAT(e *ends, id *identity) bool {
	p := e.at(0, 104)
	if p == nil || string(p[3:11]) != "EXFAT   " {
		return false
	}
	id.uuid = formatSerial(binary.LittleEndian.Uint32(p[100:]))
	return true
}

// detectF2FS recognises the first superblock, at 1 KiB: its UUID is at 108 in
// that, and its label, in UTF-16, at 124.
func detectF2FS(e *ends, id *identity) bool {
	p := e.at(1024, 124+1024)
	if p == nil || binary.LittleEndian.Uint32(p) != 0xf2f52010 {
		return false
	}
	id.setUUID(p[108:124])
	var label []uint16
	for i := 124; i < len(p); i += 2 {
		u := binary.LittleEndian.Uint16(p[i:])
		if u == 0 {
			break
		}
		label = append(label, u)
	}
	id.label = []byte(string(utf16.Decode(label)))
	return true
}

// detectEROFS recognises the superblock at 1 KiB: its UUID is at 48 in that, and
// its label at 64.
func detectEROFS(e *ends, id *identity) bool {
	p := e.at(1024, 80)
	if p == nil || binary.LittleEndian.Uint32(p) != 0xe0f5e1e2 {
		return false
	}
	id.setUUID(p[48:64])
	id.label = trim(p[64:80])
	return true
}

// isoDetails takes what the primary volume descriptor at 32 KiB has: the label at 40,
// and a date for a UUID.
func isoDetails(e *ends, id *identity) {
	p := e.at(32<<10, 2048)
	if p == nil {
		return
	}
	id.label = trim(p[40:72])
	if date := iso9660.Date(p); date != [16]byte{} {
		id.uuid = formatDate(date)
	}
}

// extDetails takes what the superblock at 1 KiB has: the UUID at 104 and the label
// at 120.
func extDetails(e *ends, id *identity) {
	if p := e.at(1024, 136); p != nil {
		id.setUUID(p[104:120])
		id.label = trim(p[120:])
	}
}

// xfsDetails takes what the superblock has: the UUID at 32 and the label at 108.
func xfsDetails(e *ends, id *identity) {
	if p := e.at(0, 120); p != nil {
		id.setUUID(p[32:48])
		id.label = trim(p[108:])
	}
}
