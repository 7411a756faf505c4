package sandbox

import (
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// file is the content of a regular file. It implements [disk.Sparse].
type file struct {
	content
	fs  *filesystem
	ino uint64

	once  sync.Once // guards what follows
	whole wire.Content
	err   error
}

// held returns a file whose content has been told.
func (fs *filesystem) held(ino uint64, data []byte) *file {
	size := int64(len(data))
	f := &file{fs: fs, ino: ino, content: fs.content(ino, size)}
	f.once.Do(func() { f.whole = wire.Content{Told: true, Data: data, Extents: []disk.Extent{{Length: size}}} })
	return f
}

// small returns the whole content of a small file; not Told if there is a
// reason to read it in the ordinary way.
func (f *file) small() (wire.Content, error) {
	if f.size == 0 || f.size > smallSize {
		return wire.Content{}, nil
	}
	f.once.Do(func() { f.whole, f.err = f.fs.small.read(f.ino, uint32(f.size)) })
	return f.whole, f.err
}

// Bytes returns the content of a small file, which is in memory and not to be changed; nil
// if it must be read.
func (f *file) Bytes() ([]byte, error) {
	whole, err := f.small()
	if err != nil || !whole.Told {
		return nil, err
	}
	return slices.Clip(whole.Data), nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	whole, err := f.small()
	if err != nil {
		return 0, err
	}
	if !whole.Told {
		return f.content.ReadAt(p, off)
	}
	p, end, err := clamp(p, off, f.size)
	if err != nil {
		return 0, err
	}
	if len(p) > 0 {
		copy(p, whole.Data[off:])
	}
	return len(p), end
}

func (f *file) Extents(off, length int64, yield func(disk.Extent) error) error {
	whole, err := f.small()
	if err != nil {
		return err
	}
	if !whole.Told || whole.Extents == nil {
		return f.content.Extents(off, length, yield)
	}
	if off < 0 || length < 0 || off > f.size || length > f.size-off {
		return fmt.Errorf("extents of %d bytes at %d: %w", length, off, os.ErrInvalid)
	}
	for _, e := range whole.Extents {
		if err := yieldWithin(e, off, off+length, yield); err != nil {
			return err
		}
	}
	return nil
}
