package fusefs

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/drydock-vm/drydock/disk"
)

// maxReported bounds the inodes that are remembered as reported. Who has read
// that many errors does not miss the next.
const maxReported = 1 << 16

// reporter passes the first error of each inode on.
type reporter struct {
	report func(ino uint64, err error)

	mu   sync.Mutex // guards what follows
	seen map[uint64]struct{}
}

// status reports an error of inode ino, and returns the errno for it.
func (r *reporter) status(ino uint64, err error) fuse.Status {
	if r.first(ino) {
		r.report(ino, err)
	}
	return statusOf(err)
}

func (r *reporter) first(ino uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, seen := r.seen[ino]; seen || len(r.seen) >= maxReported {
		return false
	}
	r.seen[ino] = struct{}{}
	return true
}

// statusOf translates as Linux's filesystems do: EUCLEAN is their word for damage.
func statusOf(err error) fuse.Status {
	switch {
	case errors.Is(err, disk.ErrNotExist):
		return fuse.ENOENT
	case errors.Is(err, disk.ErrUnsupported):
		return fuse.Status(syscall.EOPNOTSUPP)
	case errors.Is(err, disk.ErrCorrupt):
		return fuse.Status(syscall.EUCLEAN)
	}
	return fuse.EIO
}

// tooLarge is the error of a directory that is read only so far.
func tooLarge(fsys disk.Filesystem, ino uint64) error {
	return &disk.Error{Layer: fsys.Info().Type, Structure: fmt.Sprintf("directory %d", ino), Offset: -1, Err: disk.ErrLimit,
		Detail: fmt.Sprintf("it has more than %d entries, or %d bytes of names", disk.MaxDirEntries, maxNames)}
}

// badName is the error of a name that Linux cannot have.
func badName(fsys disk.Filesystem, ino uint64, length int) error {
	return &disk.Error{Layer: fsys.Info().Type, Structure: fmt.Sprintf("directory %d", ino), Offset: -1, Err: disk.ErrCorrupt,
		Detail: fmt.Sprintf("a name of %d bytes", length)}
}
