package newimage

import (
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
)

// locate finds where the machine has made room for content, as the confined reader says:
// what a machine that was taken over makes of the filesystem changes which file a guest
// finds where, and nothing else.
func (m *maker) locate(path string) (runs []Run, err error) {
	err = m.pairs(path, func(made disk.Filesystem, ino, there uint64) error {
		f, err := made.Open(there)
		if err != nil {
			return err
		}
		l, ok := f.(disk.Locator)
		if !ok {
			return errors.New("the reader does not tell where content is")
		}
		err = m.blocks(ino, func(from, to int64) error {
			from, to = from*blockSize, min(to*blockSize, f.Size())
			return l.Locate(from, max(0, to-from), func(at disk.Location) error {
				runs, err = addRun(runs, ino, at, m.opts.Size)
				return err
			})
		})
		if err != nil {
			return fmt.Errorf("%.100q: %w", m.src.paths[ino], err)
		}
		return nil
	}, func(path []byte) error {
		if m.opts.Warn != nil {
			m.opts.Warn(path, "it could not be made")
		}
		return nil
	})
	return runs, err
}

// addRun adds the place of content on a disk of a size. That ends with a file, but has
// whole blocks.
func addRun(runs []Run, ino uint64, at disk.Location, size int64) ([]Run, error) {
	length := (at.Length + blockSize - 1) &^ (blockSize - 1)
	switch {
	case at.Device != 0 || at.Sums != nil:
		return nil, fmt.Errorf("%w: %d bytes at %d lie nowhere", errRuns, at.Length, at.Offset)
	case (at.Offset|at.At)%blockSize != 0 || at.At > size-length:
		return nil, fmt.Errorf("%w: %d bytes at %d lie at %d", errRuns, at.Length, at.Offset, at.At)
	}
	if n := len(runs); n > 0 {
		last := &runs[n-1]
		if last.Ino == ino && last.At+last.Length == at.Offset && last.Offset+last.Length == at.At {
			last.Length += length
			return runs, nil
		}
	}
	if len(runs) == maxRuns {
		return nil, fmt.Errorf("content lies in more than %d pieces: %w", maxRuns, disk.ErrLimit)
	}
	return append(runs, Run{Offset: at.At, Length: length, Ino: ino, At: at.Offset}), nil
}
