package ext4

import (
	"fmt"

	"github.com/drydock-vm/drydock/disk"
)

// layer is how errors name this package's filesystems.
const layer = "ext4"

const hintFsck = "shut the guest down, let it run e2fsck, and try again"

// nowhere is the offset of a structure that has none of its own.
const nowhere = -1

func damaged(structure string, off int64, format string, args ...any) error {
	return &disk.Error{
		Layer: layer, Structure: structure, Offset: off, Err: disk.ErrCorrupt,
		Detail: fmt.Sprintf(format, args...), Hint: hintFsck,
	}
}

func unsupported(structure string, off int64, hint, format string, args ...any) error {
	return &disk.Error{
		Layer: layer, Structure: structure, Offset: off, Err: disk.ErrUnsupported,
		Detail: fmt.Sprintf(format, args...), Hint: hint,
	}
}

func beyondLimit(structure string, off int64, format string, args ...any) error {
	return &disk.Error{
		Layer: layer, Structure: structure, Offset: off, Err: disk.ErrLimit,
		Detail: fmt.Sprintf(format, args...),
	}
}

func absent(structure, format string, args ...any) error {
	return &disk.Error{
		Layer: layer, Structure: structure, Offset: nowhere, Err: disk.ErrNotExist,
		Detail: fmt.Sprintf(format, args...),
	}
}

// unreadable wraps an error of the layer below.
func unreadable(structure string, off int64, err error) error {
	return &disk.Error{Layer: layer, Structure: structure, Offset: off, Err: err}
}
