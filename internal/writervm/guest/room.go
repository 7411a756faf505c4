//go:build linux

package guest

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/writervm/wire"
)

// hollowOptions mount a filesystem so that all content lies in blocks of its own, of
// which nothing else of the filesystem knows what is in them.
var hollowOptions = map[string]string{"btrfs": "nodatasum,max_inline=0"}

const (
	// directUnit is what O_DIRECT writes multiples of, in bytes: blocks of XFS, sectors
	// of btrfs.
	directUnit = 4096
	// direct is from what length on zeros go past the page cache, in bytes: many small
	// pieces are gathered in it.
	direct = 256 << 10
	// zeroSize is how many zeros are written at once.
	zeroSize = 8 << 20
)

// room writes zeros where content belongs, so that the blocks are there and count as
// written. fallocate(2) gives blocks that read as zeros whatever is in them.
func (t *tree) room(payload []byte) error {
	r, err := wire.DecodeRange(payload, t.file.made.Size)
	if err != nil || t.file.fd < 0 {
		return err
	}
	if r.Offset == 0 && r.Length == t.file.made.Size && r.Length < direct {
		t.file.sized = true
	}
	if err := t.size(); err != nil {
		return err
	}
	if t.zeros == nil { // at the start of a page, which O_DIRECT asks for
		if t.zeros, err = unix.Mmap(-1, 0, zeroSize, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
			return fmt.Errorf("get memory: %w", err)
		}
	}
	from, to := (r.Offset+directUnit-1)&^(directUnit-1), (r.Offset+r.Length)&^(directUnit-1)
	if to-from < direct {
		err = t.writeZeros(r.Offset, r.Offset+r.Length)
	} else if err = t.writeZeros(r.Offset, from); err == nil {
		if err = t.writeDirect(from, to); err == nil {
			err = t.writeZeros(to, r.Offset+r.Length)
		}
	}
	if err != nil {
		return t.failed(t.file.made.Name, fmt.Errorf("make room for content: %w", err))
	}
	return nil
}

// writeDirect writes zeros past the page cache.
func (t *tree) writeDirect(from, to int64) error {
	flags, err := unix.FcntlInt(uintptr(t.file.fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(t.file.fd), unix.F_SETFL, flags|unix.O_DIRECT); err != nil {
		return err
	}
	if err := t.writeZeros(from, to); err != nil {
		return err
	}
	_, err = unix.FcntlInt(uintptr(t.file.fd), unix.F_SETFL, flags)
	return err
}

func (t *tree) writeZeros(from, to int64) error {
	for from < to {
		n, err := unix.Pwrite(t.file.fd, t.zeros[:min(to-from, zeroSize)], from)
		if err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}
