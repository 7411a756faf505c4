//go:build linux

package guest

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/writervm/wire"
)

// noteContent remembers a file whose content others may share.
func (t *tree) noteContent(f *wire.File) error {
	handle, _, err := unix.NameToHandleAt(t.at(), string(f.Name), 0)
	if err != nil {
		return t.failed(f.Name, fmt.Errorf("remember a file whose content others share: %w", err))
	}
	t.contents[f.Ino] = handle
	return nil
}

// share gives the file the content of another, without a copy.
func (t *tree) share(payload []byte) error {
	ino, _, err := wire.Number(payload)
	if err != nil || t.file.fd < 0 {
		return err
	}
	name := t.file.made.Name
	handle, ok := t.contents[ino]
	if !ok { // it could not be made
		return t.warn(t.path(name), fmt.Errorf("share content: the file that has it is not there: %w", unix.ENOENT))
	}
	fd, err := unix.OpenByHandleAt(t.root, handle, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC)
	if err != nil {
		return t.failed(name, fmt.Errorf("find the file whose content is shared: %w", err))
	}
	defer unix.Close(fd)
	if err := unix.IoctlFileClone(t.file.fd, fd); err != nil {
		return t.failed(name, fmt.Errorf("share content: %w", err))
	}
	t.file.sized = true
	return nil
}
