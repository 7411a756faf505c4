package newimage

import (
	"context"
	"fmt"
	"os"

	"github.com/drydock-vm/drydock/disk"
)

// pairs calls each for every regular file of the backup that is in the new filesystem on
// an image at path: once for all of its names, with its inode numbers here and there.
// missing is told the path of a file or folder that is not there, with all that would be
// in it.
func (m *maker) pairs(path string, each func(made disk.Filesystem, ino, there uint64) error, missing func(path []byte) error) error {
	return m.readMade(path, func(made disk.Filesystem) error {
		p := &pairing{ctx: m.ctx, src: m.src, made: made, each: each, missing: missing, seen: map[pair]bool{}, found: m.found}
		return p.folder(m.src.Info().Root, made.Info().Root, []byte("/"), 0)
	})
}

// readMade opens the new filesystem on an image at path, for as long as do takes.
func (m *maker) readMade(path string, do func(made disk.Filesystem) error) error {
	image, err := os.Open(path)
	if err != nil {
		return err
	}
	defer image.Close()
	made, stop, err := m.opts.Read(m.ctx, image)
	if err != nil {
		return ofMade(err)
	}
	defer stop()
	return do(made)
}

// pairing walks the backup and the new filesystem side by side.
type pairing struct {
	ctx     context.Context
	src     *source
	made    disk.Filesystem
	each    func(made disk.Filesystem, ino, there uint64) error
	missing func(path []byte) error
	seen    map[pair]bool   // hardlinked files
	found   map[uint64]bool // as in [maker]; may be nil
}

// pair is a file, by its inode numbers in the backup and in the new filesystem. There it
// may be several, where so many have hardlinks that they are not all kept.
type pair struct{ ino, made uint64 }

// folder walks a folder, whose path has a slash at its end.
func (p *pairing) folder(ino, made uint64, path []byte, depth int) error {
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	if depth > maxDepth {
		return fmt.Errorf("folders lie more than %d deep: %w", maxDepth, disk.ErrLimit)
	}
	entries, err := disk.List(p.src, ino)
	if err != nil {
		return err
	}
	there, err := p.find(entries, made)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type != disk.ModeDir && e.Type != disk.ModeRegular {
			continue
		}
		at, below := there[string(e.Name)], append(path[:len(path):len(path)], e.Name...)
		if at.Type != e.Type {
			err = p.missing(below)
		} else if e.Type == disk.ModeDir {
			err = p.folder(e.Ino, at.Ino, append(below, '/'), depth+1)
		} else {
			err = p.file(pair{e.Ino, at.Ino})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// find returns those of the entries that are in a folder of the new filesystem, by name;
// what else is there is passed over, however much that is.
func (p *pairing) find(entries []disk.DirEntry, made uint64) (map[string]disk.DirEntry, error) {
	there := make(map[string]disk.DirEntry, len(entries))
	for _, e := range entries {
		there[string(e.Name)] = disk.DirEntry{}
	}
	err := p.made.ReadDir(made, func(e disk.DirEntry) error {
		if _, wanted := there[string(e.Name)]; wanted {
			there[string(e.Name)] = disk.DirEntry{Ino: e.Ino, Type: e.Type}
		}
		return nil
	})
	return there, ofMade(err)
}

// ofMade is an error of the new filesystem. It does not wrap: who looks for damage in an
// error looks for that of the backup.
func ofMade(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("read the new filesystem: %v", err)
}

func (p *pairing) file(f pair) error {
	inode, err := p.src.Inode(f.ino)
	if err != nil || p.seen[f] {
		return err
	}
	if inode.Links > 1 {
		p.seen[f] = true
	}
	if p.found != nil {
		p.found[f.made] = true
	}
	return p.each(p.made, f.ino, f.made)
}

// blocks yields the blocks of a file of the backup that content is in, by their numbers:
// in ascending order, each once, and to is not one of them.
func (m *maker) blocks(ino uint64, yield func(from, to int64) error) error {
	content, err := m.src.Filesystem.Open(ino)
	if err != nil {
		return err
	}
	next := int64(0) // the first that was not yielded
	return content.Extents(0, content.Size(), func(e disk.Extent) error {
		if e.Kind != disk.ExtentData {
			return nil
		}
		from, to := max(e.Offset/blockSize, next), (e.Offset+e.Length-1)/blockSize+1
		if from >= to {
			return nil
		}
		next = to
		return yield(from, to)
	})
}
