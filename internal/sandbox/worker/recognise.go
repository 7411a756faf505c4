package worker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// signature is how one kind of content is recognised, and where it keeps what
// identifies it. Offsets are in bytes from the start of the volume.
type signature struct {
	kind    string // as blkid(8) calls it
	title   string // as a person calls it
	off     int64
	magic   string
	uuid    int64 // 0: none
	label   int64 // 0: none
	labelTo int64
	// way is what a user can do with such a volume.
	way string
}

// The ways out of a refusal.
const (
	wayImage    = "back it up as an image"
	wayMember   = "drydock reads plain volumes only: back the disks up as images"
	wayWrongOne = "name the partition that holds the filesystem"
)

// signatures lists what is recognised. Containers stand first: the member of a
// mirror also looks like the filesystem within it.
//
// The places are those of util-linux's libblkid, and of the format's own
// documents.
var signatures = []signature{
	{kind: "crypto_LUKS", title: "a LUKS container", off: 0, magic: "LUKS\xba\xbe", way: "encryption is the guest's: back it up as an image, or from within the guest"},
	{kind: "BitLocker", title: "a BitLocker container", off: 3, magic: "-FVE-FS-", way: "encryption is the guest's: back it up as an image, or from within the guest"},
	{kind: "LVM2_member", title: "an LVM physical volume", off: 512 + 24, magic: "LVM2 001", way: wayMember},
	{kind: "linux_raid_member", title: "a member of a Linux RAID (md)", off: 0, magic: "\xfc\x4e\x2b\xa9\x01\x00\x00\x00", way: wayMember},
	{kind: "linux_raid_member", title: "a member of a Linux RAID (md)", off: 4096, magic: "\xfc\x4e\x2b\xa9\x01\x00\x00\x00", way: wayMember},
	{kind: "bcache", title: "a bcache device", off: 4096 + 24, magic: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", way: wayMember},
	{kind: "bcachefs", title: "bcachefs", off: 4096 + 24, magic: "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", uuid: 4096 + 40, way: wayImage},
	{kind: "ext4", title: "ext4", off: 1024 + 56, magic: "\x53\xef", uuid: 1024 + 104, label: 1024 + 120, labelTo: 1024 + 136},
	{kind: "xfs", title: "XFS", off: 0, magic: "XFSB", uuid: 32, label: 108, labelTo: 120, way: wayImage},
	{kind: "btrfs", title: "btrfs", off: 65536 + 64, magic: "_BHRfS_M", uuid: 65536 + 32, label: 65536 + 299, labelTo: 65536 + 299 + 256, way: wayImage},
	{kind: "swap", title: "swap space", off: 4096 - 10, magic: "SWAPSPACE2", uuid: 1024 + 12, label: 1024 + 28, labelTo: 1024 + 44, way: wayWrongOne},
	{kind: "swap", title: "swap space", off: 65536 - 10, magic: "SWAPSPACE2", uuid: 1024 + 12, label: 1024 + 28, labelTo: 1024 + 44, way: wayWrongOne},
	{kind: "f2fs", title: "F2FS", off: 1024, magic: "\x10\x20\xf5\xf2", uuid: 1024 + 108, way: wayImage},
	{kind: "erofs", title: "EROFS", off: 1024, magic: "\xe2\xe1\xf5\xe0", uuid: 1024 + 48, label: 1024 + 64, labelTo: 1024 + 80, way: wayImage},
	{kind: "nilfs2", title: "NILFS2", off: 1024 + 6, magic: "\x34\x34", uuid: 1024 + 152, label: 1024 + 168, labelTo: 1024 + 248, way: wayImage},
	{kind: "jfs", title: "JFS", off: 32768, magic: "JFS1", uuid: 32768 + 136, label: 32768 + 152, labelTo: 32768 + 168, way: wayImage},
	{kind: "reiserfs", title: "ReiserFS", off: 65536 + 52, magic: "ReIsEr", uuid: 65536 + 84, label: 65536 + 100, labelTo: 65536 + 116, way: wayImage},
	{kind: "squashfs", title: "SquashFS", off: 0, magic: "hsqs", way: wayImage},
	{kind: "iso9660", title: "ISO 9660", off: 32768 + 1, magic: "CD001", label: 32768 + 40, labelTo: 32768 + 72, way: wayImage},
	{kind: "ntfs", title: "NTFS", off: 3, magic: "NTFS    ", way: wayImage},
	{kind: "exfat", title: "exFAT", off: 3, magic: "EXFAT   ", way: wayImage},
	{kind: "vfat", title: "FAT", off: 82, magic: "FAT32   ", label: 71, labelTo: 82, way: wayImage},
	{kind: "vfat", title: "FAT", off: 54, magic: "FAT16   ", label: 43, labelTo: 54, way: wayImage},
	{kind: "vfat", title: "FAT", off: 54, magic: "FAT12   ", label: 43, labelTo: 54, way: wayImage},
}

// headSize covers every signature but those of ZFS and of md's old versions.
const headSize = 65536 + 1024

// content is what was recognised in a volume.
type content struct {
	signature
	label []byte
	uuid  [16]byte
}

// recognise looks for signatures in a volume. The kind is "" if there is none.
func recognise(v disk.Sparse) (content, error) {
	head := make([]byte, min(headSize, v.Size()))
	if err := readAll(v, head, 0); err != nil {
		return content{}, err
	}
	tail, err := recogniseTail(v)
	if err != nil || tail.kind != "" {
		return content{signature: tail}, err
	}
	for _, s := range signatures {
		if bytes.HasPrefix(part(head, s.off, s.off+int64(len(s.magic))), []byte(s.magic)) {
			return describe(s, head), nil
		}
	}
	zfs, err := recogniseZFS(v)
	return content{signature: zfs}, err
}

func describe(s signature, head []byte) content {
	if s.kind == "ext4" {
		s.kind = extKind(head)
	}
	c := content{signature: s}
	if s.uuid != 0 {
		copy(c.uuid[:], part(head, s.uuid, s.uuid+16))
	}
	label := part(head, s.label, s.labelTo)
	if i := bytes.IndexByte(label, 0); i >= 0 {
		label = label[:i]
	}
	c.label = clip(bytes.TrimRight(label, " "), wire.MaxLabel)
	return c
}

// part returns head[from:to], as far as that is there.
func part(head []byte, from, to int64) []byte {
	n := int64(len(head))
	return head[min(from, n):min(to, n)]
}

// extKind tells the generations of ext apart, as mount(8) would choose.
// (Documentation/filesystems/ext4/super.rst; offsets in the superblock.)
func extKind(head []byte) string {
	const (
		hasJournal = 0x4  // s_feature_compat, at 0x5c
		ext3       = 0x1e // s_feature_incompat, at 0x60: what ext3 knows
		ext3RO     = 0x7  // s_feature_ro_compat, at 0x64: what ext3 knows
		compatOff  = 1024 + 0x5c
	)
	f := part(head, compatOff, compatOff+12)
	if len(f) < 12 {
		return "ext4"
	}
	compat, incompat, ro := binary.LittleEndian.Uint32(f), binary.LittleEndian.Uint32(f[4:]), binary.LittleEndian.Uint32(f[8:])
	switch {
	case incompat&^ext3 != 0 || ro&^ext3RO != 0:
		return "ext4"
	case compat&hasJournal != 0:
		return "ext3"
	}
	return "ext2"
}

// recogniseTail looks for the superblocks that md versions 0.90 and 1.0 keep at
// the end. (drivers/md/md.c: super_90_rdev_size_change, super_1_load.)
func recogniseTail(v disk.Sparse) (signature, error) {
	const magic = "\xfc\x4e\x2b\xa9"
	for _, off := range []int64{
		v.Size()&^(64<<10-1) - 64<<10,
		(v.Size() - 8<<10) &^ (4<<10 - 1),
	} {
		if off < 0 {
			continue
		}
		var b [len(magic)]byte
		if err := readAll(v, b[:], off); err != nil {
			return signature{}, err
		}
		if string(b[:]) == magic {
			return signature{kind: "linux_raid_member", title: "a member of a Linux RAID (md)", way: wayMember}, nil
		}
	}
	return signature{}, nil
}

// recogniseZFS looks for an uberblock in the first label: 128 slots of 1 KiB at
// 128 KiB, each beginning with the magic number in either byte order.
func recogniseZFS(v disk.Sparse) (signature, error) {
	const start, slot, slots, magic = 128 << 10, 1 << 10, 128, 0x00bab10c
	if v.Size() < start+slot*slots {
		return signature{}, nil
	}
	b := make([]byte, slot*slots)
	if err := readAll(v, b, start); err != nil {
		return signature{}, err
	}
	for ; len(b) > 0; b = b[slot:] {
		if binary.LittleEndian.Uint64(b) == magic || binary.BigEndian.Uint64(b) == magic {
			return signature{kind: "zfs_member", title: "a member of a ZFS pool", way: wayMember}, nil
		}
	}
	return signature{}, nil
}

func readAll(v disk.Sparse, p []byte, off int64) error {
	n, err := v.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// openFilesystem opens what a volume holds, or says why not.
func openFilesystem(v disk.Sparse, number uint32) (disk.Filesystem, error) {
	c, err := recognise(v)
	if err != nil {
		return nil, err
	}
	switch {
	case c.readable():
		return ext4.Open(v, ext4.Options{})
	case c.kind == "":
		return nil, &disk.Error{Layer: "disk", Structure: volumeName(number), Offset: -1, Err: disk.ErrUnsupported,
			Detail: "it holds nothing that is recognised as a filesystem",
			Hint:   "name another partition, or " + wayImage}
	}
	return nil, &disk.Error{Layer: "disk", Structure: volumeName(number), Offset: -1, Err: disk.ErrUnsupported,
		Detail: fmt.Sprintf("it holds %s, which drydock does not read yet", c.title), Hint: c.way}
}

// readable reports whether openFilesystem opens such a volume.
func (c content) readable() bool {
	return c.kind == "ext2" || c.kind == "ext3" || c.kind == "ext4"
}

func volumeName(number uint32) string {
	if number == 0 {
		return "the whole disk"
	}
	return fmt.Sprintf("volume %d", number)
}
