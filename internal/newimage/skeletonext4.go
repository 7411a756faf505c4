package newimage

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/drydock-vm/drydock/disk"
)

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

// placed is a file of the backup, and where it is in a new ext4.
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

// place finds the files of the backup in the ext4 at path, and writes the commands of
// debugfs that give them their blocks.
func (m *maker) place(path string, commands io.Writer) (files []placed, err error) {
	err = m.pairs(path, func(_ disk.Filesystem, ino, made uint64) error {
		f := placed{ino: ino, made: made}
		err := m.blocks(ino, func(from, to int64) error {
			f.blocks += to - from
			_, err := fmt.Fprintf(commands, "fallocate <%d> %d %d\n", made, from, to-1)
			return err
		})
		if f.blocks > 0 {
			files = append(files, f)
		}
		return err
	}, func(path []byte) error {
		if m.found != nil { // it could not be read when the filesystem was made
			return m.missing(path)
		}
		return fmt.Errorf("mke2fs has left out %.100q", path)
	})
	return files, err
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
			runs = append(runs, Run{Offset: at * blockSize, Length: n * blockSize, Ino: f.ino, At: block * blockSize})
			got += n
		})
		if err != nil {
			return nil, fmt.Errorf("inode %d: %w", f.made, err)
		}
		if len(runs) > maxRuns {
			return nil, fmt.Errorf("content lies in more than %d pieces: %w", maxRuns, disk.ErrLimit)
		}
		if got != f.blocks {
			return nil, fmt.Errorf("%w: a file of %d blocks got %d (choose a larger size)", ErrSize, f.blocks, got)
		}
	}
	return runs, nil
}
