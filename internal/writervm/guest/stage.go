//go:build linux

package guest

import (
	"crypto/rand"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/writervm/wire"
)

// MaxSkipped is how many numbers are skipped in all, so that subvolumes get those that they
// had: each takes a subvolume that is removed again, whose 32 KiB the kernel gives back
// when the filesystem is mounted next.
const MaxSkipped = 256

// stage is a folder of subvolumes that wait for their places. Btrfs gives numbers in the
// order in which subvolumes are made, which is not that in which they come.
type stage struct {
	name    string // in the root
	fd      int
	waiting map[uint32]bool // by number
}

func stagedName(number uint32) string { return strconv.FormatUint(uint64(number), 10) }

// take reports whether a subvolume waits, which it does no longer.
func (s *stage) take(number uint32) bool {
	if s == nil || !s.waiting[number] {
		return false
	}
	delete(s.waiting, number)
	return true
}

// number makes the subvolumes that will come, as far as their numbers can be had.
func (t *tree) number(payload []byte) error {
	wanted, err := wire.DecodeSubvolumes(payload)
	if err != nil || !t.btrfs {
		return err
	}
	s := &stage{name: ".drydock-" + rand.Text(), waiting: map[uint32]bool{}}
	if err := unix.Mkdirat(t.root, s.name, 0o700); err != nil {
		return fmt.Errorf("make a folder for subvolumes: %w", err)
	}
	if s.fd, err = unix.Openat(t.root, s.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open the folder for subvolumes: %w", err)
	}
	t.stage = s
	for skipped := 0; len(wanted) > 0 && skipped <= MaxSkipped; {
		got, err := s.next()
		if err != nil {
			return fmt.Errorf("make a subvolume: %w", err)
		}
		for len(wanted) > 0 && uint64(wanted[0]) < got { // its number is gone
			wanted = wanted[1:]
		}
		if len(wanted) > 0 && uint64(wanted[0]) == got {
			s.waiting[wanted[0]] = true
			err = unix.Renameat(s.fd, newest, s.fd, stagedName(wanted[0]))
		} else {
			skipped++
			err = subvolumeIoctl(s.fd, snapDestroy, newest)
		}
		if err != nil {
			return fmt.Errorf("make subvolume %d: %w", got, err)
		}
	}
	return nil
}

// newest is the name of a subvolume until its number is known.
const newest = "new"

// next makes a subvolume, and returns its number.
func (s *stage) next() (uint64, error) {
	if err := subvolumeIoctl(s.fd, subvolCreate, newest); err != nil {
		return 0, err
	}
	fd, err := unix.Openat(s.fd, newest, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return numberOf(fd)
}

// unstage removes the subvolumes that did not come, and the folder.
func (t *tree) unstage() error {
	if t.stage == nil {
		return nil
	}
	for n := range t.stage.waiting {
		if err := subvolumeIoctl(t.stage.fd, snapDestroy, stagedName(n)); err != nil {
			return fmt.Errorf("remove subvolume %d: %w", n, err)
		}
	}
	if err := unix.Unlinkat(t.root, t.stage.name, unix.AT_REMOVEDIR); err != nil {
		return fmt.Errorf("remove the folder for subvolumes: %w", err)
	}
	return nil
}
