package newimage

import (
	"bufio"
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
	Ino            uint64 // of the file, in the backup
	At             int64  // in the file
}

// MakeSkeleton makes the ext4 filesystem that [Make] would make, but reads no
// content: mke2fs is shown files that are one hole, debugfs then gives them blocks,
// and those are marked as written. It works below the name at, where nothing is left.
// Options.Read is needed; it takes root. Other filesystems are [ErrFilesystem].
func MakeSkeleton(ctx context.Context, fsys disk.Filesystem, at string, opts Options) (*Skeleton, error) {
	m := newHollow(ctx, fsys, at, opts)
	s, err := m.skeleton()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("make the filesystem of the backup: %w", err)
	}
	return s, nil
}

// OpenSkeleton opens a skeleton that [MakeSkeleton] has kept (Options.Keep) of the same
// backup.
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
	m.src = &source{Filesystem: fsys, hidden: map[uint64]bool{}, hollow: true, told: func(int64) {}}
	return m
}

func (m *maker) reopen(path string) (_ *Skeleton, err error) {
	if m.survey, err = m.src.survey(m.ctx, m.damaged); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	files, err := m.place(path, io.Discard)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return m.finishSkeleton(f, files)
}

// finishSkeleton marks the files' blocks as written, which changes nothing where they
// are.
func (m *maker) finishSkeleton(f *os.File, files []placed) (*Skeleton, error) {
	runs, err := markWritten(f, files)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Skeleton{File: f, Size: m.opts.Size, Runs: runs}, nil
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

func (m *maker) skeleton() (*Skeleton, error) {
	if m.opts.Filesystem != "ext4" {
		return nil, fmt.Errorf("%.20q %w that has no content (back the disk up whole: backup: image)", m.opts.Filesystem, ErrFilesystem)
	}
	if err := m.begin(); err != nil {
		return nil, err
	}
	defer m.work.close()
	if err := m.populate(m.ext4); err != nil {
		return nil, err
	}
	if err := m.ext4Times(); err != nil {
		return nil, err
	}
	files, err := m.allocate()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(m.work.image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	s, err := m.finishSkeleton(f, files)
	if err != nil {
		return nil, err
	}
	if err := m.keep(s); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// hollowFile is a file that has its size, and nothing in it.
type hollowFile int64

func (h hollowFile) Size() int64 { return int64(h) }

func (h hollowFile) ReadAt(p []byte, off int64) (int, error) {
	n := int(min(max(int64(h)-off, 0), int64(len(p))))
	clear(p[:n])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h hollowFile) Extents(off, length int64, yield func(disk.Extent) error) error {
	if off < 0 || length < 0 || length > int64(h)-off {
		return fmt.Errorf("extents of %d bytes at %d: %w", length, off, io.ErrUnexpectedEOF)
	}
	if length == 0 {
		return nil
	}
	return yield(disk.Extent{Offset: off, Length: length, Kind: disk.ExtentHole})
}

// placed is a file of the backup, and where it is in the new filesystem.
type placed struct {
	ino    uint64 // in the backup
	made   uint64 // in the new filesystem
	blocks int64  // that its content takes
}

// allocate gives the files blocks for their content.
func (m *maker) allocate() ([]placed, error) {
	commands, err := m.work.script()
	if err != nil {
		return nil, err
	}
	defer commands.Close()
	w := bufio.NewWriter(commands)
	files, err := m.place(m.work.image, w)
	if err != nil {
		return nil, err
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	return files, m.program(nil, nil, "debugfs", "-w", "-f", commands.Name(), m.work.image)
}

// place finds the files of the backup in the filesystem at path, and writes the
// commands of debugfs that give them their blocks.
func (m *maker) place(path string, commands io.Writer) ([]placed, error) {
	image, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	made, stop, err := m.opts.Read(m.ctx, image)
	if err != nil {
		return nil, err
	}
	defer stop()
	a := &allocator{ctx: m.ctx, src: m.src, made: made, seen: map[uint64]bool{}, w: commands}
	err = a.folder(m.src.Info().Root, made.Info().Root, 0)
	return a.files, err
}

// allocator walks the backup and the new filesystem side by side, and writes the
// commands of debugfs that give each file its blocks.
type allocator struct {
	ctx   context.Context
	src   *source
	made  disk.Filesystem
	seen  map[uint64]bool // hardlinked files, by inode number in the backup
	files []placed
	w     io.Writer
}

func (a *allocator) folder(ino, made uint64, depth int) error {
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	if depth > maxDepth {
		return fmt.Errorf("folders lie more than %d deep: %w", maxDepth, disk.ErrLimit)
	}
	there := map[string]uint64{}
	if err := a.made.ReadDir(made, func(e disk.DirEntry) error {
		there[string(e.Name)] = e.Ino
		return nil
	}); err != nil {
		return err
	}
	entries, err := disk.List(a.src, ino)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type != disk.ModeDir && e.Type != disk.ModeRegular {
			continue
		}
		at, ok := there[string(e.Name)]
		if !ok {
			return fmt.Errorf("mke2fs has left out %.100q", e.Name)
		}
		if e.Type == disk.ModeDir {
			err = a.folder(e.Ino, at, depth+1)
		} else {
			err = a.file(e.Ino, at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// file asks for the blocks of one file, its holes left out.
func (a *allocator) file(ino, made uint64) error {
	inode, err := a.src.Inode(ino)
	if err != nil || a.seen[ino] {
		return err
	}
	if inode.Links > 1 {
		a.seen[ino] = true
	}
	content, err := a.src.Filesystem.Open(ino)
	if err != nil {
		return err
	}
	f := placed{ino: ino, made: made}
	next := int64(0) // the first block that was not asked for
	err = content.Extents(0, content.Size(), func(e disk.Extent) error {
		if e.Kind != disk.ExtentData {
			return nil
		}
		from, to := max(e.Offset/ext4Block, next), (e.Offset+e.Length-1)/ext4Block
		if from > to {
			return nil
		}
		next = to + 1
		f.blocks += next - from
		_, err := fmt.Fprintf(a.w, "fallocate <%d> %d %d\n", made, from, to)
		return err
	})
	if f.blocks > 0 {
		a.files = append(a.files, f)
	}
	return err
}

// markWritten turns the blocks that debugfs gave to files, which count as reserved
// and read as zeros, into blocks that were written, and tells where they are.
func markWritten(image *os.File, files []placed) ([]Run, error) {
	fs, err := openExtents(image)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(files, func(a, b placed) int { return cmp.Compare(a.made, b.made) })
	var runs []Run
	for _, f := range files {
		got := int64(0)
		err := fs.write(f.made, func(block, at, n int64) {
			runs = append(runs, Run{Offset: at * ext4Block, Length: n * ext4Block, Ino: f.ino, At: block * ext4Block})
			got += n
		})
		if err != nil {
			return nil, fmt.Errorf("inode %d: %w", f.made, err)
		}
		if got != f.blocks {
			return nil, fmt.Errorf("%w: a file of %d blocks got %d (choose a larger size)", ErrSize, f.blocks, got)
		}
	}
	slices.SortFunc(runs, func(a, b Run) int { return cmp.Compare(a.Offset, b.Offset) })
	for i := 1; i < len(runs); i++ {
		if runs[i-1].Offset+runs[i-1].Length > runs[i].Offset {
			return nil, fmt.Errorf("two files have the block at %d", runs[i].Offset)
		}
	}
	return runs, nil
}
