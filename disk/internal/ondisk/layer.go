package ondisk

import (
	"errors"
	"fmt"
	"io"

	"github.com/drydock-vm/drydock/disk"
)

// Nowhere is the offset of a structure that has none of its own.
const Nowhere = -1

// Layer makes the errors of one layer of a disk.
type Layer struct {
	Name   string // "ext4"
	Repair string // the way out of damage: "shut the guest down and let it run e2fsck"
}

// Damaged is the error of bytes that contradict the format.
func (l Layer) Damaged(structure string, off int64, format string, args ...any) error {
	return l.fail(disk.ErrCorrupt, structure, off, l.Repair, format, args)
}

// Unsupported is the error of bytes that may be right, but that the reader
// refuses.
func (l Layer) Unsupported(structure string, off int64, hint, format string, args ...any) error {
	return l.fail(disk.ErrUnsupported, structure, off, hint, format, args)
}

// Beyond is the error of a number that passes one of the reader's limits.
func (l Layer) Beyond(structure string, off int64, format string, args ...any) error {
	return l.fail(disk.ErrLimit, structure, off, "back this disk up as an image", format, args)
}

// Absent is the error of something that was asked for and is not there.
func (l Layer) Absent(structure, format string, args ...any) error {
	return l.fail(disk.ErrNotExist, structure, Nowhere, "", format, args)
}

// Unreadable is the error of a read of the layer below that failed.
func (l Layer) Unreadable(structure string, off int64, err error) error {
	e := &disk.Error{Layer: l.Name, Structure: structure, Offset: off, Err: err}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		e.Hint = "the disk ends before: the image is cut short, or this is the wrong partition"
	}
	return e
}

func (l Layer) fail(kind error, structure string, off int64, hint, format string, args []any) error {
	return &disk.Error{
		Layer: l.Name, Structure: structure, Offset: off, Err: kind,
		Detail: fmt.Sprintf(format, args...), Hint: hint,
	}
}
