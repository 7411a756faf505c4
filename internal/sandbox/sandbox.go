// Package sandbox reads guest disks in a confined worker process, so that no
// byte a guest wrote is ever parsed by a process that could do harm.
//
// [Start] executes drydock again with the disk's files as read-only
// descriptors and a socket to talk over, and nothing else. Before the worker
// looks at the disk it gives up everything that a reader does not need
// ([Measures] names what). The parent treats the worker as hostile from then
// on: every answer is checked, every request has a deadline, and a worker that
// dies, hangs or lies costs one disk one [*Error], never more.
//
// [Disk] and the filesystems it hands out answer as package disk says, so a
// caller does not see that another process does the reading. Errors of the
// readers arrive as [*disk.Error] with their sentinels intact.
package sandbox

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/drydock-vm/drydock/disk"
)

// Verb is the first argument of a drydock process that is to be a worker. The
// program must call [WorkerMain] when it sees it, before it does anything else.
const Verb = "worker"

// Options say how workers are run. The zero value is right outside tests.
type Options struct {
	// Executable is the program to run as the worker, by default this one.
	Executable string
	// Args are its arguments, by default [Verb] alone.
	Args []string

	// AllowWithout names the [Measures] that may be missing on this host.
	// Start refuses when any other is.
	AllowWithout []string

	// MemoryLimit is how much memory the worker may use, in bytes; by
	// default [DefaultMemoryLimit].
	MemoryLimit int64

	// RequestTimeout is how long one request may take before the worker is
	// killed; by default [DefaultRequestTimeout].
	RequestTimeout time.Duration
}

// The defaults of [Options].
const (
	// DefaultMemoryLimit holds every cache of the readers with room for what
	// the largest structures of a filesystem need.
	DefaultMemoryLimit = 256 << 20
	// DefaultRequestTimeout is long enough for 1 MiB from a disk that sleeps
	// or retries, and short enough that a night's round survives a hang.
	DefaultRequestTimeout = 2 * time.Minute
)

// The formats of a [DiskSpec]. They are declared, never probed.
const (
	Raw   = "raw"
	Qcow2 = "qcow2"
)

// DiskSpec is a disk image and what is declared about it.
type DiskSpec struct {
	// Name is what errors call the disk.
	Name string
	// File is the image, open for reading only: Start refuses a file that
	// could be written to. It stays the caller's, who may close it as soon as
	// Start returns.
	File *os.File
	// Format is [Raw] or [Qcow2].
	Format string
	// Snapshot is the ID or name of a qcow2 internal snapshot to read in
	// place of the active state; empty for the latter.
	Snapshot string
	// Backing is the image below a qcow2 image that names a backing file.
	// Its name in the image is never used.
	Backing *DiskSpec
	// SectorSize is 512 or 4096, the size in which partition tables count; 0
	// is 512.
	SectorSize int
}

// Snapshot is an internal snapshot of a qcow2 image. ID and Name are the
// guest host's words: escape them before they are printed.
type Snapshot struct {
	ID, Name  []byte
	Time      disk.Time
	DiskSize  int64 // bytes
	StateSize int64 // bytes of saved machine state; 0 when taken while off
}

// Volume is a part of a disk that may hold a filesystem.
type Volume struct {
	// Number is the partition's, counting from 1 as the kernel does, or 0
	// for a whole disk that has no partition table.
	Number int
	// Table is the kind of partition table that the volume is from: "gpt",
	// "mbr", or "" for a whole disk.
	Table        string
	Offset, Size int64 // bytes from the start of the disk
	// PartitionName is what a GPT calls the volume; hostile bytes.
	PartitionName []byte

	// Type is what the volume holds, as blkid(8) calls it: "ext4", "xfs",
	// "btrfs", "vfat", "swap", "LVM2_member", "crypto_LUKS",
	// "linux_raid_member", "zfs_member"…, or "" when nothing is recognised.
	Type string
	// Readable says that [Disk.Filesystem] reads this type.
	Readable bool
	Label    []byte // without padding; hostile bytes
	UUID     [16]byte
}

// Disk is a disk image that a worker reads. It is the [disk.Sparse] of what
// the guest sees as the whole disk. All methods are safe for concurrent use.
type Disk struct {
	name string
	size int64
}

// Start starts a worker that reads the disk that spec describes. ctx bounds the
// worker's whole life: when it ends the worker is killed, and whatever is being
// read fails with ctx's error.
//
// A host that lacks one of the [Measures] is refused with a [*MissingError],
// unless opts.AllowWithout names it.
func Start(ctx context.Context, opts Options, spec DiskSpec) (*Disk, error) {
	return nil, errors.ErrUnsupported
}

// Close ends the worker. Reads in progress fail.
func (d *Disk) Close() error { return errors.ErrUnsupported }

// Name is the name that spec gave the disk.
func (d *Disk) Name() string { return d.name }

// Size is the size of the disk in bytes, as the guest sees it.
func (d *Disk) Size() int64 { return d.size }

// ReadAt reads from the disk, as [disk.Sparse] says.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) { return 0, errors.ErrUnsupported }

// Extents lists the extents of the disk, as [disk.Sparse] says.
func (d *Disk) Extents(off, length int64, yield func(disk.Extent) error) error {
	return errors.ErrUnsupported
}

// Snapshots lists the internal snapshots of a qcow2 image; none for raw.
func (d *Disk) Snapshots() []Snapshot { return nil }

// Volumes reads the partition table and recognises what each partition holds.
// A disk without a table is one volume with number 0.
func (d *Disk) Volumes(ctx context.Context) ([]Volume, error) { return nil, errors.ErrUnsupported }

// Volume returns the bytes of a volume; number 0 is the whole disk.
func (d *Disk) Volume(ctx context.Context, number int) (disk.Sparse, error) {
	return nil, errors.ErrUnsupported
}

// Filesystem opens the filesystem in a volume; number 0 is the whole disk. A
// volume that holds something else is refused with [disk.ErrUnsupported], by
// name.
//
// Inode, Xattrs and Readlink are cheap for files that ReadDir has just listed.
// Content that cannot be read is reported by the content's methods, not by
// Open.
func (d *Disk) Filesystem(ctx context.Context, number int) (disk.Filesystem, error) {
	return nil, errors.ErrUnsupported
}

// WorkerMain is the whole life of a worker process; it returns the exit code.
func WorkerMain() int { return 1 }
