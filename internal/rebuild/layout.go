package rebuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
)

// CheckLayout makes sure that the filesystem of a disk whose files are backed up, of
// size bytes, can be put where it was: that it filled the disk, or that the backup has
// what is around it.
func CheckLayout(s *repository.Snapshot, d *definition.Disk, size int64) error {
	switch {
	case len(d.Pieces) == 0 && d.Partition == 0 && d.Volume == "":
		return nil
	case len(d.Pieces) == 0 || !wholedisk.HasLayout(s, d.Name):
		return errors.New("the backup has the files of a partition or volume, and not what is around it")
	case d.PiecesEnd() != size:
		return errors.New("what the backup says of where its filesystem lies and of how large it is does not fit")
	}
	return nil
}

// inLayout makes a disk of what is around a filesystem, and of the filesystem.
func (x *run) inLayout(ctx context.Context, it *Item, tree disk.Filesystem, part string) error {
	around := part
	if it.disk.Format == formatQCOW2 {
		around = part + ".around.raw"
	}
	inside := part + ".inside.raw"
	defer os.Remove(inside)
	for _, path := range []string{around, inside} {
		if err := remove(path); err != nil {
			return err
		}
	}
	_, err := x.opts.Tree.WriteImage(ctx, it.disk.Name, around, restore.ImageOptions{})
	if err != nil {
		return err
	}
	if around != part {
		defer os.Remove(around)
	}
	if err := x.filesystem(ctx, it, tree, inside); err != nil {
		return err
	}
	if err := copyPieces(ctx, around, inside, it.disk); err != nil {
		return err
	}
	if around == part {
		return nil
	}
	return tool(it).ConvertRaw(ctx, around, part)
}

// copyPieces puts the filesystem in the image at from into the pieces of the disk
// image at to. Both have one size or another that the backup says: what does not fit is
// refused.
func copyPieces(ctx context.Context, to, from string, d *definition.Disk) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer dst.Close()
	filesystem, err := src.Stat()
	if err != nil {
		return err
	}
	layout, err := dst.Stat()
	if err != nil {
		return err
	}
	if err := d.Fits(layout.Size(), filesystem.Size()); err != nil {
		return err
	}
	for _, p := range d.Pieces {
		if err := copyPiece(ctx, dst, src, p); err != nil {
			return err
		}
	}
	return dst.Sync()
}

// copyChunk is how much is copied between two looks at the context, in bytes.
const copyChunk = 64 << 20

// copyPiece copies the data of a piece. What is a hole in the filesystem's image is
// zeros in the disk's already.
func copyPiece(ctx context.Context, dst, src *os.File, p definition.Piece) error {
	end := p.Offset + p.Length
	for at := p.Offset; at < end; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		data, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && data >= end {
			return nil // no data up to the end
		}
		if err != nil {
			return fmt.Errorf("look for data in %s: %w", src.Name(), err)
		}
		hole, err := unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("look for holes in %s: %w", src.Name(), err)
		}
		n := min(hole, end, data+copyChunk) - data
		out := io.NewOffsetWriter(dst, p.At+data-p.Offset)
		if _, err := io.CopyN(out, io.NewSectionReader(src, data, n), n); err != nil {
			return err
		}
		at = data + n
	}
	return nil
}
