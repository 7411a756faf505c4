package newimage

import (
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
)

// locate finds where the machine has made room for content, as the confined reader says:
// what a machine that was taken over makes of the filesystem changes which file a guest
// finds where, and nothing else.
func (m *maker) locate(path string) ([]Run, error) {
	found := &runList{size: m.opts.Size}
	err := m.pairs(path, func(made disk.Filesystem, ino, there uint64) error {
		if err := m.locateFile(made, ino, there, found); err != nil {
			return fmt.Errorf("%.100q: %w", m.src.paths[ino], err)
		}
		return nil
	}, func(path []byte) error {
		if m.opts.Warn != nil {
			m.opts.Warn(path, "it could not be made")
		}
		return nil
	})
	return found.runs, err
}

func (m *maker) locateFile(made disk.Filesystem, ino, there uint64, found *runList) error {
	inode, err := m.src.Inode(ino)
	if err != nil {
		return err
	}
	f, err := made.Open(there)
	if err != nil {
		return ofMade(err)
	}
	l, ok := f.(disk.Locator)
	if !ok {
		return errors.New("the reader does not tell where content is")
	}
	if f.Size() != inode.Size {
		return fmt.Errorf("%w: it has %d bytes, and should have %d", errRuns, f.Size(), inode.Size)
	}
	return m.blocks(ino, func(from, to int64) error {
		from, to = from*blockSize, min(to*blockSize, f.Size())
		return ofMade(l.Locate(from, to-from, func(at disk.Location) error { return found.add(ino, at) }))
	})
}

// runList collects runs on a disk of a size.
type runList struct {
	size int64
	runs []Run
}

// add adds the place of content. That ends with a file, but has whole blocks.
func (l *runList) add(ino uint64, at disk.Location) error {
	length := (at.Length + blockSize - 1) &^ (blockSize - 1)
	switch {
	case at.Device != 0 || at.Sums != nil:
		return fmt.Errorf("%w: %d bytes at %d lie nowhere", errRuns, at.Length, at.Offset)
	case (at.Offset|at.At)%blockSize != 0 || at.At > l.size-length:
		return fmt.Errorf("%w: %d bytes at %d lie at %d", errRuns, at.Length, at.Offset, at.At)
	}
	if n := len(l.runs); n > 0 {
		last := &l.runs[n-1]
		if last.Ino == ino && last.At+last.Length == at.Offset && last.Offset+last.Length == at.At {
			last.Length += length
			return nil
		}
	}
	if len(l.runs) == maxRuns {
		return fmt.Errorf("content lies in more than %d pieces: %w", maxRuns, disk.ErrLimit)
	}
	l.runs = append(l.runs, Run{Offset: at.At, Length: length, Ino: ino, At: at.Offset})
	return nil
}
