package newimage

import (
	"errors"
	"fmt"
	"sync"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/writervm/wire"
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
	}, m.missing)
	return found.runs, err
}

// missing is told what is not in a filesystem that a machine has written. The machine has
// said so, unless it was another one, or has warned of too much.
func (m *maker) missing(path []byte) error {
	switch {
	case m.warned != nil && m.warned.paths[string(path)]:
		return nil
	case m.warned != nil && m.warned.count < wire.MaxWarnings:
		return fmt.Errorf("the machine that wrote it has left out %.100q without a word", path)
	case m.opts.Warn != nil:
		m.opts.Warn(path, "it could not be made")
	}
	return nil
}

// warnings is what the machine has warned of, and what it was spared.
type warnings struct {
	mu    sync.Mutex // guards what follows, while the machine writes
	paths map[string]bool
	count int
}

func (w *warnings) add(path []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paths == nil {
		w.paths = map[string]bool{}
	}
	w.paths[string(path)] = true
	w.count++
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
	case (at.Offset|at.At)%blockSize != 0 || at.At < 0 || at.At > l.size-length:
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
