package restore

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
)

// maxFlagged is how many files with flags are remembered. The flags of others are
// left out, with a warning.
const maxFlagged = 1 << 20

// flagged is what gets flags when everything else is done: what is immutable takes
// no further name, and nothing new in it.
type flagged struct {
	path  []byte
	flags int
}

// noteFlags remembers the flags of what was restored.
func (r *restorer) noteFlags(path []byte, inode disk.Inode) {
	bits := inode.Flags.Settable()
	switch {
	case bits == 0:
	case !r.opts.Flags:
		r.report.LeftOut.Flags++
	case len(r.flagged) == maxFlagged:
		r.warn(path, r.limit("flags of more than %d files", maxFlagged))
	default:
		r.flagged = append(r.flagged, flagged{path, bits})
	}
}

// setFlags sets the flags that were noted, those of folders after what is in them.
func (r *restorer) setFlags() error {
	for _, f := range r.flagged {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := onTarget(r.setFlagsOf(f)); err != nil {
			if fatal(err) {
				return err
			}
			r.warn(f.path, fmt.Errorf("flags: %w", err))
		}
	}
	return nil
}

func (r *restorer) setFlagsOf(f flagged) error {
	file, err := r.root.OpenFile(strings.TrimPrefix(string(f.path), "/"), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	was, err := unix.IoctlGetUint32(int(file.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	return unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, int(was)|f.flags)
}
