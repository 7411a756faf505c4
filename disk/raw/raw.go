// Package raw reads raw disk images: files and block devices that hold a
// guest's disk byte for byte, where holes in the file are zeros of the disk.
//
// It supports regular files, block devices and any other [io.ReaderAt]. It
// promises never to interpret what it reads, so nothing that a guest writes
// changes how its disk is read, and to know the holes of a file from the host's
// filesystem (lseek with SEEK_DATA and SEEK_HOLE) without reading their data.
package raw

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"syscall"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// SectorSize is the unit, in bytes, to which the size of a disk is rounded up:
// a file that ends within a sector is a disk whose last sector is filled with
// zeros. QEMU shows it to the guest in the same way.
const SectorSize = 512

// The whence values of lseek(2) on Linux, which package io does not name.
const (
	seekData = 3
	seekHole = 4
)

// layer makes this package's errors.
var layer = ondisk.Layer{Name: "raw"}

// image implements [disk.Sparse] and [disk.Locator].
type image struct {
	r io.ReaderAt
	// file is r where r is an *os.File, which knows its holes; else nil.
	file *os.File
	// stored is what r holds, and size that rounded up to sectors, in bytes.
	stored, size int64
}

// Open reads the first size bytes of r as a disk. The disk's Size is size
// rounded up to [SectorSize]; the bytes in between read as zeros.
//
// Where r is an *os.File, Extents asks the host's filesystem for the holes. That
// moves the file's offset, so nobody may use that of r at the same time; ReadAt
// does not. For any other r, and where the host's filesystem or device does not
// know, all is data. The caller keeps r open for as long as the disk is used.
//
// The disk is a [disk.Locator] too: device 0 is r.
func Open(r io.ReaderAt, size int64) (disk.Sparse, error) {
	if size < 0 || size > math.MaxInt64-SectorSize {
		return nil, layer.Beyond("image", ondisk.Nowhere, "a size of %d bytes is not possible", size)
	}
	file, _ := r.(*os.File)
	return &image{
		r:      r,
		file:   file,
		stored: size,
		size:   (size + SectorSize - 1) / SectorSize * SectorSize,
	}, nil
}

func (im *image) Size() int64 { return im.size }

func (im *image) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, im.failure(off, os.ErrInvalid)
	}
	if off >= im.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > im.size-off {
		p, end = p[:im.size-off], io.EOF
	}
	there := min(int64(len(p)), max(0, im.stored-off))
	if err := ondisk.ReadFull(im.r, p[:there], off); err != nil {
		return 0, im.failure(off, err)
	}
	clear(p[there:])
	return len(p), end
}

// Extents calls yield for the extents of [off, off+length).
func (im *image) Extents(off, length int64, yield func(disk.Extent) error) error {
	if !ondisk.Within(off, length, im.size) {
		return im.failure(off, os.ErrInvalid)
	}
	if err := im.checkFile(); err != nil {
		return err
	}
	for end := off + length; off < end; {
		e, err := im.next(off)
		if err != nil {
			return err
		}
		e.Length = min(e.Length, end-off)
		if err := yield(e); err != nil {
			return err
		}
		off += e.Length
	}
	return nil
}

// Locate calls yield for [off, off+length): every byte of the disk lies at the
// same place in the file, except for those that fill up the last sector.
func (im *image) Locate(off, length int64, yield func(disk.Location) error) error {
	if !ondisk.Within(off, length, im.size) {
		return im.failure(off, os.ErrInvalid)
	}
	there := max(0, min(length, im.stored-off))
	if there > 0 {
		if err := yield(disk.Location{Offset: off, Length: there, At: off}); err != nil {
			return err
		}
	}
	if there == length {
		return nil
	}
	return yield(disk.Location{Offset: off + there, Length: length - there, Device: -1})
}

// checkFile refuses a file that has been cut since Open: behind its new end the
// host reports a hole, which would pass for zeros of the guest.
func (im *image) checkFile() error {
	if im.file == nil {
		return nil
	}
	st, err := im.file.Stat()
	if err != nil {
		return im.failure(-1, err)
	}
	if st.Mode().IsRegular() && st.Size() < im.stored {
		return im.failure(st.Size(), io.ErrUnexpectedEOF)
	}
	return nil
}

// next returns the extent that starts at off, which is less than im.size.
func (im *image) next(off int64) (disk.Extent, error) {
	data, err := im.seek(off, seekData)
	if err != nil {
		return disk.Extent{}, err
	}
	if data > off {
		return disk.Extent{Offset: off, Length: data - off, Kind: disk.ExtentHole}, nil
	}
	hole, err := im.seek(off, seekHole)
	if err != nil {
		return disk.Extent{}, err
	}
	if hole <= off { // punched between the two calls
		return disk.Extent{Offset: off, Length: min(SectorSize, im.size-off)}, nil
	}
	return disk.Extent{Offset: off, Length: hole - off}, nil
}

// seek returns where the next data or hole at or after off begins, im.size if
// there is none. The answer comes from the arguments alone and not from the
// file's offset, so that calls at the same time do not disturb each other.
func (im *image) seek(off int64, whence int) (int64, error) {
	unknown := off // everything is data
	if whence == seekHole {
		unknown = im.size
	}
	if im.file == nil {
		return unknown, nil
	}
	at, err := im.file.Seek(off, whence)
	switch {
	case err == nil && at >= im.stored:
		return im.size, nil // rounding up to a sector adds no extent to data
	case err == nil:
		return max(at, off), nil
	case errors.Is(err, syscall.ENXIO):
		return im.size, nil // no data, or no file, from off on
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOTSUP):
		return unknown, nil // block devices and a few filesystems
	}
	return 0, im.failure(off, err)
}

func (im *image) failure(off int64, err error) error {
	e := &disk.Error{Layer: "raw", Structure: "image", Offset: off, Err: err}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		e.Detail = fmt.Sprintf("the file is shorter than the %d bytes it had when it was opened", im.stored)
		e.Hint = "something else changes the image: keep the VM stopped, or read a snapshot"
	}
	return e
}
