// Package disk says what a guest disk is: the shapes that every format,
// partition table and filesystem reader below this folder answers in.
//
// Everything that comes out of these readers was written by a hostile guest.
// The readers promise to return the content or an [Error], never to panic, never
// to allocate a size that a disk claims, and never to open a path. Names are
// bytes: not UTF-8, not safe to print, not safe to use as a path.
//
// The packages below import the standard library and named decompressors only.
package disk

import (
	"io"
	"math"
	"slices"
)

// Sparse is a sized run of bytes that knows its holes: a disk image, a
// partition of one, or a regular file in a guest's filesystem.
//
// ReadAt follows [io.ReaderAt]: it fills p or returns an error; a read that
// reaches Size returns io.EOF with what was there. It is safe for concurrent
// use.
type Sparse interface {
	io.ReaderAt

	// Size is the length in bytes, as the guest sees it.
	Size() int64

	// Extents calls yield for consecutive extents that together cover
	// exactly [off, off+length), in order, without reading their data. It
	// stops at the first error of yield and returns that. Neighbours of one
	// kind need not be merged.
	Extents(off, length int64, yield func(Extent) error) error
}

// ExtentKind says what is known about a range without reading it.
type ExtentKind uint8

// The kinds of extent. Everything but ExtentData reads as zeros.
const (
	// ExtentData must be read to know what it holds.
	ExtentData ExtentKind = iota
	// ExtentZero is allocated, and reads as zeros: a zero cluster, a
	// preallocated extent that was never written.
	ExtentZero
	// ExtentHole is not allocated, and reads as zeros.
	ExtentHole
)

// Extent is a range of a [Sparse]. Offset and Length are in bytes.
type Extent struct {
	Offset, Length int64
	Kind           ExtentKind
}

// Location is a range of a [Sparse] whose bytes lie, as they are, at another
// place: in the device below a filesystem, in the file that holds an image.
type Location struct {
	Offset, Length int64 // bytes, in the [Sparse]

	// Device is the number of the device or file below, as its reader counts
	// them (0 where there is one); At is where in it the bytes lie. Device is
	// -1 for what lies nowhere in this form: holes, compressed or inline
	// content, what a journal replay holds in memory, what must be verified in
	// another way than by Sums.
	Device int
	At     int64

	// Sums is nil, or the bytes count only if they have these checksums.
	Sums *Checksums
}

// Checksums are those of consecutive blocks, the first of which is where a
// [Location] starts. The last may reach beyond its end.
type Checksums struct {
	Block  int64  // bytes that each one is of, a power of two
	CRC32C []byte // of each block, as in RFC 3720; 4 bytes, little-endian
}

// Locator is a [Sparse] that can tell where its bytes lie below, so that who
// has the layer below need not have them read to him.
type Locator interface {
	// Locate calls yield for consecutive locations that together cover
	// exactly [off, off+length), in order. It stops at the first error of
	// yield and returns that.
	Locate(off, length int64, yield func(Location) error) error
}

// Filesystem is a guest's filesystem, addressed by inode number. All methods
// are safe for concurrent use.
//
// Inode numbers are at least 1 and less than [MaxIno]. A filesystem may also be a
// [Usage] and a [SubvolumeLister].
type Filesystem interface {
	Info() FilesystemInfo

	// Inode returns the attributes of inode ino.
	Inode(ino uint64) (Inode, error)

	// ReadDir calls yield for each entry of directory ino except "." and
	// "..", in the order in which the disk keeps them. The entry's Name is
	// valid only until yield returns. It stops at the first error of yield
	// and returns that.
	ReadDir(ino uint64, yield func(DirEntry) error) error

	// Readlink returns the target of symlink ino.
	Readlink(ino uint64) ([]byte, error)

	// Xattrs returns the extended attributes of ino, sorted by name, with
	// their full names ("user.comment", "security.capability",
	// "system.posix_acl_access" in the kernel's xattr encoding).
	Xattrs(ino uint64) ([]Xattr, error)

	// Open returns the content of regular file ino.
	Open(ino uint64) (Sparse, error)
}

// MaxIno bounds the inode numbers of a [Filesystem]: the byte above is left for
// who puts several filesystems together to one tree.
const MaxIno = 1 << 56

// Usage is a [Filesystem] that knows which parts of its devices it uses. What it
// does not yield is free, and need not be kept by a copy of the device.
type Usage interface {
	// Used calls yield for the ranges of device number device that are in
	// use, in bytes: in ascending order, apart from one another, without
	// reading them. Device is 0 where there is one. It stops at the first
	// error of yield and returns that.
	Used(device int, yield func(off, length int64) error) error
}

// SubvolumeLister is a [Filesystem] that holds several trees: btrfs. One
// Filesystem shows them all, each mounted where its parent keeps it.
type SubvolumeLister interface {
	// Subvolumes returns all subvolumes and snapshots, the top level first.
	Subvolumes() ([]Subvolume, error)
}

// Subvolume is one tree of a filesystem that holds several.
type Subvolume struct {
	ID     uint64 // as "btrfs subvolume list" shows it
	Parent uint64 // ID of the subvolume that it lies in; 0 for the top level
	// Path is where it lies below the top level, without a leading "/"; empty
	// for the top level itself. Hostile bytes.
	Path []byte
	Root uint64 // inode number of its root directory
	UUID [16]byte
	// Origin is the UUID of the subvolume that this one was made a snapshot of, which
	// may be gone; zero if it was none.
	Origin [16]byte
	// Received is the UUID that the subvolume had where "btrfs send" read it; zero if it
	// was not received.
	Received [16]byte
	// Made and Changed are the numbers of the transactions in which it was made, and in
	// which something in it was changed last, or in its original before it was made. They
	// are 0 where the filesystem does not tell an origin either.
	Made, Changed uint64
	ReadOnly      bool
	Default       bool // what a mount without "subvol=" shows
}

// SubvolumeShift is where an inode number carries the ID of its subvolume: above
// that many bits of the number in the subvolume.
const SubvolumeShift = 40

// SubvolumeOf returns the ID of the subvolume that an inode number carries.
func SubvolumeOf(ino uint64) uint32 { return uint32(ino % MaxIno >> SubvolumeShift) }

// FilesystemInfo describes a filesystem as a whole.
type FilesystemInfo struct {
	Type  string   // "ext4", as mount(8) calls it
	Label []byte   // without padding; hostile bytes
	UUID  [16]byte // zero where there is none
	Root  uint64   // inode number of the root directory

	BlockSize  int64 // bytes
	Size       int64 // bytes
	InodeCount uint64

	// Remarks are what an administrator should know, a sentence each: "the
	// journal was replayed in memory: 12 transactions", "errors were recorded
	// by the guest's kernel". They hold no hostile bytes.
	Remarks []string
}

// Inode is the attributes of one file of any type.
type Inode struct {
	Ino        uint64
	Generation uint32
	Mode       uint32 // st_mode of Linux: type and permission bits
	UID, GID   uint32
	Links      uint32
	Size       int64 // bytes
	Rdev       Device
	Flags      InodeFlags
	Subvolume  uint32 // ID of the subvolume, where Flags has FlagSubvolume

	// Birth is zero where the filesystem does not keep it.
	Access, Modify, Change, Birth Time
}

// The file types in [Inode.Mode], as Linux numbers them.
const (
	ModeType    = 0o170000
	ModeSocket  = 0o140000
	ModeSymlink = 0o120000
	ModeRegular = 0o100000
	ModeBlock   = 0o060000
	ModeDir     = 0o040000
	ModeChar    = 0o020000
	ModeFIFO    = 0o010000
)

// Type returns the type bits of Mode.
func (n *Inode) Type() uint32 { return n.Mode & ModeType }

// AddSizes adds sizes of files, in bytes, of which none is below zero. A guest can make
// several of 8 EiB: a sum ends at the largest number.
func AddSizes(a, b int64) int64 { return min(a, math.MaxInt64-b) + b }

// InodeFlags are the attributes that chattr(1) sets, as far as a backup cares, and
// what a directory is beyond that.
type InodeFlags uint32

// The inode flags.
const (
	FlagNoDump InodeFlags = 1 << iota
	FlagImmutable
	FlagAppend
	// FlagEncrypted marks content that only the guest's key can read.
	FlagEncrypted
	// FlagSubvolume marks the root directory of a subvolume of btrfs, but for that of
	// the top level. With it may come FlagReadOnly, that nothing in the subvolume can be
	// changed, and FlagDefault, that a mount without "subvol=" shows it.
	FlagSubvolume
	FlagReadOnly
	FlagDefault
)

// flagNames are the flags as text, in alphabetical order.
var flagNames = []struct {
	name string
	flag InodeFlags
}{
	{"append", FlagAppend}, {"encrypted", FlagEncrypted}, {"immutable", FlagImmutable}, {"nodump", FlagNoDump},
	{"subvolume", FlagSubvolume}, {"subvolume-default", FlagDefault}, {"subvolume-read-only", FlagReadOnly},
}

// Names returns the names of the flags, sorted.
func (f InodeFlags) Names() (names []string) {
	for _, known := range flagNames {
		if f&known.flag != 0 {
			names = append(names, known.name)
		}
	}
	return names
}

// FlagsOf returns the flags that have these names. Others it passes over.
func FlagsOf(names []string) (f InodeFlags) {
	for _, known := range flagNames {
		if slices.Contains(names, known.name) {
			f |= known.flag
		}
	}
	return f
}

// Settable returns the flags that chattr(1) can set, as FS_IOC_SETFLAGS has them
// (include/uapi/linux/fs.h). FlagEncrypted says how content is stored, and is none.
func (f InodeFlags) Settable() (bits int) {
	if f&FlagImmutable != 0 {
		bits |= 0x10
	}
	if f&FlagAppend != 0 {
		bits |= 0x20
	}
	if f&FlagNoDump != 0 {
		bits |= 0x40
	}
	return bits
}

// Device is a device number, of an inode of type block or char.
type Device struct{ Major, Minor uint32 }

// Time is a time on a guest's disk: seconds since 1970 and nanoseconds within
// that second, 0 to 999,999,999.
type Time struct {
	Sec  int64
	Nsec uint32
}

// DirEntry is one name in a directory.
type DirEntry struct {
	Name []byte // 1 to 255 bytes, never with '/' or NUL in it, never "." or ".."
	Ino  uint64
	// Type is the ModeType bits, or 0 where the directory does not keep them.
	Type uint32
}

// Xattr is one extended attribute.
type Xattr struct {
	Name  []byte
	Value []byte
}
