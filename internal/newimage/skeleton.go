package newimage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/atomicfile"
)

// Skeleton is a filesystem that has all of the files of a backup but their content.
// Content has its place: [Skeleton.Runs] say which bytes of the disk are which of a
// file's. It takes as much room as the metadata.
type Skeleton struct {
	// File is the disk, with holes where content belongs. It has no name, unless it
	// was to be kept, and is gone when it is closed.
	File *os.File
	Size int64
	Runs []Run // by Offset, none overlaps another
}

// Run is a part of a skeleton that holds a part of a file, in bytes. The last of a
// file may reach beyond the file's end: what is there is zeros.
type Run struct {
	Offset, Length int64
	Ino            uint64 // of the file, in the backup; 0 is of one that the backup has lost
	At             int64  // in the file
}

// maxRuns bounds in how many runs a skeleton has its content: 256 MiB of them.
const maxRuns = 8 << 20

// maxGrown is how often a skeleton is begun anew because the files do not fit: the first
// time takes them all, but for what a filesystem needs beside them.
const maxGrown = 3

var errRuns = errors.New("the places of content make no sense")

// MakeSkeleton makes the filesystem that [Make] would make, but reads no content. Of an
// ext4 mke2fs is shown files that are one hole, debugfs then gives them blocks, and those
// are marked as written. The machine that writes XFS and btrfs writes zeros, and the
// confined reader tells where. It works below the name at, where nothing is left;
// several may do so at once. Options.Read is needed; it takes root. Content that files
// shared, or that was compressed, is neither: with Options.Grow it gets the room.
//
// Btrfs has no checksums of what is content.
func MakeSkeleton(ctx context.Context, fsys disk.Filesystem, at string, opts Options) (*Skeleton, error) {
	if damaged := opts.Damaged; opts.Grow && damaged != nil {
		told := map[string]bool{} // once, however often it is begun
		opts.Damaged = func(path []byte, err error) {
			if !told[string(path)] {
				told[string(path)] = true
				damaged(path, err)
			}
		}
	}
	m := newHollow(ctx, fsys, at, opts)
	s, err := m.skeleton()
	for grown := 0; opts.Grow && errors.Is(err, ErrSize) && grown < maxGrown; grown++ {
		const unit = 1 << 20 // no disk ends within a sector
		opts.Size = (max(2*opts.Size, m.survey.stored/4*5, m.least()) + unit - 1) &^ (unit - 1)
		m = newHollow(ctx, fsys, at, opts)
		s, err = m.skeleton()
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("make the filesystem of the backup: %w", err)
	}
	return s, nil
}

// OpenSkeleton opens a skeleton that [MakeSkeleton] has kept (Options.Keep) of the same
// backup. Of files that cannot be read any more it has the places still: who took what is
// there for content would take zeros.
func OpenSkeleton(ctx context.Context, fsys disk.Filesystem, path string, opts Options) (*Skeleton, error) {
	m := newHollow(ctx, fsys, path, opts)
	s, err := m.reopen(path)
	if err != nil {
		return nil, fmt.Errorf("open the filesystem of the backup, %s: %w", path, err)
	}
	return s, nil
}

func newHollow(ctx context.Context, fsys disk.Filesystem, at string, opts Options) *maker {
	m := &maker{ctx: ctx, opts: opts, target: filepath.Clean(at), report: &Report{Size: opts.Size}}
	m.src = &source{Filesystem: fsys, hidden: map[uint64]bool{}, hollow: m.isExt4(), told: func(int64) {}}
	m.opts.Writer.Hollow = true
	return m
}

func (m *maker) isExt4() bool { return m.opts.Filesystem == "ext4" }

func (m *maker) skeleton() (*Skeleton, error) {
	build, err := m.builder()
	if err != nil {
		return nil, err
	}
	if err := m.begin(openAnyWorkplace); err != nil {
		return nil, err
	}
	defer m.work.close()
	if err := m.populate(build); err != nil {
		return nil, err
	}
	var files []placed
	if m.isExt4() {
		if err = m.ext4Times(); err == nil {
			files, err = m.allocate()
		}
		if err != nil {
			return nil, err
		}
	}
	s, err := m.openRuns(m.work.image, files)
	if err != nil {
		return nil, err
	}
	if err := m.keep(s); err != nil {
		return nil, errors.Join(err, s.File.Close())
	}
	return s, nil
}

func (m *maker) reopen(path string) (_ *Skeleton, err error) {
	made, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	m.opts.Size = made.Size() // it may have been made larger
	m.found = map[uint64]bool{}
	if m.survey, err = m.src.survey(m.ctx, m.damaged); err != nil {
		return nil, err
	}
	var files []placed
	if m.isExt4() {
		if files, err = m.place(path, io.Discard); err != nil {
			return nil, err
		}
	}
	return m.openRuns(path, files)
}

// openRuns finds out where content belongs. The files are those of an ext4, whose blocks
// it marks as written, which changes nothing where they are.
func (m *maker) openRuns(path string, files []placed) (*Skeleton, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	s := &Skeleton{File: f, Size: m.opts.Size}
	if m.isExt4() {
		s.Runs, err = markWritten(f, files)
	} else {
		s.Runs, err = m.locate(path)
	}
	if err == nil && m.found != nil {
		s.Runs, err = m.addLost(path, s.Runs)
	}
	if err == nil {
		err = sortRuns(s.Runs)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// sortRuns puts runs in the order of the disk, on which none may overlap another.
func sortRuns(runs []Run) error {
	slices.SortFunc(runs, func(a, b Run) int { return cmp.Compare(a.Offset, b.Offset) })
	for i := 1; i < len(runs); i++ {
		if runs[i-1].Offset+runs[i-1].Length > runs[i].Offset {
			return fmt.Errorf("%w: two have the block at %d", errRuns, runs[i].Offset)
		}
	}
	return nil
}

// keep gives the skeleton its name, if it is to have one. It is durable then.
func (m *maker) keep(s *Skeleton) error {
	if m.opts.Keep == "" {
		return nil
	}
	if err := s.File.Sync(); err != nil {
		return err
	}
	if err := os.Rename(m.work.image, m.opts.Keep); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(m.opts.Keep))
}
