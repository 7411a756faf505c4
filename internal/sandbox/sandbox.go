// Package sandbox reads guest disks in a confined worker process, so that no
// byte a guest wrote is ever parsed by a process that could do harm.
//
// [Start] executes drydock again with the files of a VM's disks as read-only
// descriptors and a socket to talk over, and nothing else. A disk that is no file,
// as one in a repository, gives the worker a second socket, over which it asks for
// bytes, and the parent answers within bounds. Before the worker
// looks at a disk it gives up everything that a reader does not need
// ([Measures] names what). The parent treats the worker as hostile from then
// on: every answer is checked, every request has a deadline, and a worker that
// dies, hangs or lies costs one VM's disks one [*Error], never more.
//
// The [Reader]'s disks, volumes and filesystems answer as package disk says, so a
// caller does not see that another process does the reading. Where the worker
// says that the bytes of a file lie as they are in an image, the parent reads
// them there: it looks at content without parsing it in any case. Errors of the
// readers arrive as [*disk.Error] with their sentinels intact.
package sandbox

import (
	"io"
	"os"
	"time"

	"github.com/drydock-vm/drydock/internal/sandbox/wire"
	"github.com/drydock-vm/drydock/internal/sandbox/worker"
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

	// Name is what errors call what the worker reads, by default the names of
	// the disks.
	Name string

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

// Content is an image that is no file of the host. Its methods are called by several
// goroutines at once. What an error of ReadAt says reaches the caller of the
// filesystem that needed the bytes.
type Content interface {
	io.ReaderAt
	Size() int64 // bytes; never negative
}

// DiskSpec is a disk image and what is declared about it.
type DiskSpec struct {
	// Name is that of the disk, which those of its volumes start with: 1 to
	// 255 bytes without a slash, which would look like a logical volume.
	Name string
	// File is the image, open for reading only: Start refuses a file that
	// could be written to. It stays the caller's, who may close it as soon as
	// Start returns; until the [Reader] is closed its offset, which the worker
	// shares, may move at any moment.
	File *os.File
	// Content is the image where it is no file: nil, or what is read in place of
	// File. The worker asks for its bytes as it needs them. It stays the caller's,
	// who keeps it readable until the [Reader] is closed; a size that changes is
	// not seen.
	Content Content
	// Format is [Raw] or [Qcow2].
	Format string
	// Snapshot is the ID or name of a qcow2 internal snapshot to read in
	// place of the active state; empty for the latter.
	Snapshot string
	// Backing is the image below a qcow2 image that names a backing file, and
	// DataFile what holds the data of one that keeps it elsewhere, like File.
	// Their names in the image are never used.
	Backing  *DiskSpec
	DataFile *os.File
	// SectorSize is 512 or 4096, the size in which partition tables count; 0
	// is 512.
	SectorSize int
}

// WorkerMain is the whole life of a worker process; it returns the exit code.
func WorkerMain() int { return worker.Program{}.Main() }

// imageFormats maps the names of formats to the protocol's.
var imageFormats = map[string]wire.Format{Raw: wire.FormatRaw, Qcow2: wire.FormatQcow2}

func (o *Options) setDefaults() {
	if o.MemoryLimit == 0 {
		o.MemoryLimit = DefaultMemoryLimit
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = DefaultRequestTimeout
	}
}
