package fusefs

import (
	"errors"
	"io"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
)

// Open is refused, which has the kernel open files by itself, keep what it has
// read of them, and spare us a request each for opening and closing.
func (fs *filesystem) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

func (fs *filesystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	ino := fs.node(in.NodeId)
	c, err := fs.contents.get(ino, fs.fsys.Open)
	if err != nil {
		return nil, fs.status(ino, err)
	}
	n, err := c.ReadAt(buf[:min(len(buf), int(in.Size))], int64(in.Offset))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fs.status(ino, err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// errFound ends a listing of extents.
var errFound = errors.New("found")

// Lseek finds the next data or hole. Where there is no more data the answer is
// ENXIO; there always is a hole, at the end of the file.
func (fs *filesystem) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE {
		return fuse.EINVAL
	}
	ino := fs.node(in.NodeId)
	c, err := fs.contents.get(ino, fs.fsys.Open)
	if err != nil {
		return fs.status(ino, err)
	}
	size := c.Size()
	if in.Offset >= uint64(size) {
		return fuse.Status(unix.ENXIO)
	}
	off := int64(in.Offset)
	err = c.Extents(off, size-off, func(e disk.Extent) error {
		if (e.Kind == disk.ExtentData) == (in.Whence == unix.SEEK_DATA) {
			out.Offset = uint64(e.Offset)
			return errFound
		}
		return nil
	})
	switch {
	case errors.Is(err, errFound):
		return fuse.OK
	case err != nil:
		return fs.status(ino, err)
	case in.Whence == unix.SEEK_DATA:
		return fuse.Status(unix.ENXIO)
	}
	out.Offset = uint64(size)
	return fuse.OK
}

const (
	// sector is the unit in which files are measured, in bytes.
	sector = 512
	// sparseSize is the size, in bytes, from which on a file is asked for its
	// holes when somebody asks for its attributes: programs recognise by its
	// blocks that it has some. Below, they cost less than the question.
	sparseSize = 256 << 10
	// maxMeasured bounds the extents that are looked at for that. Of what is
	// behind them everything counts as data.
	maxMeasured = 4096
)

// blocksOf returns how many sectors a file takes, as far as that can be told from
// its content: what is no hole.
func (fs *filesystem) blocksOf(n *disk.Inode) uint64 {
	full := (uint64(n.Size) + sector - 1) / sector
	if n.Type() != disk.ModeRegular || n.Size < sparseSize {
		return full
	}
	blocks, err := fs.blocks.get(n.Ino, fs.measure)
	if err != nil {
		return full // whoever reads the file is told why
	}
	return blocks
}

func (fs *filesystem) measure(ino uint64) (uint64, error) {
	c, err := fs.contents.get(ino, fs.fsys.Open)
	if err != nil {
		return 0, err
	}
	taken, count := c.Size(), 0
	err = c.Extents(0, taken, func(e disk.Extent) error {
		if e.Kind == disk.ExtentHole {
			taken -= e.Length
		}
		if count++; count == maxMeasured {
			return errFound
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFound) {
		return 0, err
	}
	return (uint64(taken) + sector - 1) / sector, nil
}
