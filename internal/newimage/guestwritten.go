package newimage

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/writervm"
)

// least is the size of the smallest filesystem that its program makes, in bytes: mkfs.xfs of
// xfsprogs 5.19 and later, mkfs.btrfs without --mixed.
func (m *maker) least() int64 {
	switch m.opts.Filesystem {
	case "xfs":
		return 300 << 20
	case "btrfs":
		return 109 << 20
	}
	return 0
}

// xfs makes the filesystem, and has a machine write the files.
func (m *maker) xfs() error {
	args := []string{"-q", "-f", "-b", "size=" + strconv.Itoa(blockSize)}
	if m.opts.UUID != [16]byte{} {
		args = append(args, "-m", "uuid="+uuidText(m.opts.UUID))
	}
	if l := m.opts.Label; len(l) > 0 && len(l) <= 12 && bytes.IndexByte(l, 0) < 0 {
		args = append(args, "-L", string(l))
	}
	if err := m.program(nil, nil, "mkfs.xfs", append(args, "--", m.work.image)...); err != nil {
		return err
	}
	return m.write()
}

func (m *maker) btrfs() error {
	if err := m.makeBtrfs(); err != nil {
		return err
	}
	return m.write()
}

func (m *maker) makeBtrfs() error {
	args := []string{"-q", "-f", "-s", strconv.Itoa(blockSize)}
	if m.opts.UUID != [16]byte{} {
		args = append(args, "-U", uuidText(m.opts.UUID))
	}
	if l := m.opts.Label; len(l) > 0 && len(l) <= 255 && !bytes.ContainsAny(l, "\x00\n") {
		args = append(args, "-L", string(l))
	}
	return m.apart("mkfs.btrfs", append(args, "--", m.work.image)...)
}

// write has a machine write the files into the filesystem that was made.
func (m *maker) write() error {
	o := m.opts.Writer
	o.Subvolumes = m.survey.subvolumes
	o.Damaged = func(path []byte, ino uint64, err error) {
		if m.src.hide(ino) {
			m.damaged(path, err)
		}
	}
	m.warned = &warnings{}
	o.Warn = func(path []byte, text string) {
		m.warned.add(path)
		if m.opts.Warn != nil {
			m.opts.Warn(path, text)
		}
	}
	err := writervm.Write(m.ctx, m.work.image, m.opts.Filesystem, m.src, o)
	switch {
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: %w (choose a larger size)", ErrSize, err)
	case errors.Is(err, unix.EIO), errors.Is(err, unix.EROFS): // what XFS and btrfs say then
		return fmt.Errorf("%w (is there room on the host's disk for %s?)", err, escape.Line(m.target))
	}
	return err
}
