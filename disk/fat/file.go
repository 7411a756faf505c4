package fat

import (
	"fmt"
	"io"
	"os"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// markStride is the number of clusters from one remembered place of a file to the
// next: so many entries of the table are followed to find any byte, and a file of
// 4 GiB in clusters of 512 bytes remembers 128 KiB.
const markStride = 256

// file is the content of a file whose clusters are known to be good.
type file struct {
	fs    *Filesystem
	ino   uint64
	size  int64
	marks []uint32 // marks[i] is cluster number i*markStride of the file
}

var (
	_ disk.Sparse  = (*file)(nil)
	_ disk.Locator = (*file)(nil)
)

func (f *file) Size() int64 { return f.size }

// ReadAt implements [disk.Sparse].
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, f.invalid(off)
	}
	if off >= f.size {
		return 0, io.EOF
	}
	want := min(int64(len(p)), f.size-off)
	done := 0
	err := f.runs(off, want, func(_, length, at int64) error {
		if err := ondisk.ReadFull(f.fs.dev.Disk, p[done:done+int(length)], at); err != nil {
			return layer.Unreadable(fmt.Sprintf("content of inode %d", f.ino), at, err)
		}
		done += int(length)
		return nil
	})
	if err == nil && done < len(p) {
		err = io.EOF
	}
	return done, err
}

// Extents implements [disk.Sparse]: all of it is data.
func (f *file) Extents(off, length int64, yield func(disk.Extent) error) error {
	return f.runs(off, length, func(off, length, _ int64) error {
		return yield(disk.Extent{Offset: off, Length: length, Kind: disk.ExtentData})
	})
}

// Locate implements [disk.Locator].
func (f *file) Locate(off, length int64, yield func(disk.Location) error) error {
	return f.runs(off, length, func(off, length, at int64) error {
		return yield(disk.Location{Offset: off, Length: length, At: at})
	})
}

func (f *file) invalid(off int64) error {
	return layer.Unreadable(inodeName(f.ino), off, os.ErrInvalid)
}

// runs calls yield for the stretches of [off, off+length) that lie in one piece
// on the disk, at byte at.
func (f *file) runs(off, length int64, yield func(off, length, at int64) error) error {
	if !ondisk.Within(off, length, f.size) {
		return f.invalid(off)
	}
	if length == 0 {
		return nil
	}
	g := f.fs.geo
	index := off / g.clusterSize // at most 2^32/512: a file has less than 4 GiB
	c := &chain{table: tableReader{fs: f.fs}, ino: f.ino, cluster: f.marks[index/markStride]}
	for range index % markStride {
		if err := c.next(); err != nil {
			return err
		}
	}
	for end := off + length; off < end; {
		if c.cluster == 0 {
			return c.damaged(entryPlace(f.ino), "they end before the file does, and did not when it was opened")
		}
		at := g.offset(c.cluster) + off%g.clusterSize
		n := g.clusterSize - off%g.clusterSize
		for last := c.cluster; off+n < end; last = c.cluster {
			if err := c.next(); err != nil {
				return err
			}
			if c.cluster != last+1 {
				break
			}
			n += g.clusterSize
		}
		n = min(n, end-off)
		if err := yield(off, n, at); err != nil {
			return err
		}
		off += n
	}
	return nil
}
