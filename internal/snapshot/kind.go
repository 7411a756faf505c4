package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/qemuimg"
)

// possible returns nil if a disk can have a snapshot of kind k, and else why
// not. It changes nothing.
func (s *Snapshotter) possible(ctx context.Context, k Kind, path, format string) error {
	switch k {
	case Reflink:
		if err := regular(path); err != nil {
			return err
		}
		return probeReflink(path)
	case QCOW2:
		return s.possibleInternal(ctx, path, format)
	case None:
		return nil
	}
	return fmt.Errorf("there is no kind %q", k)
}

func (s *Snapshotter) take(ctx context.Context, k Kind, path, format, name string) error {
	switch k {
	case Reflink:
		if err := regular(path); err != nil {
			return err
		}
		return takeCopy(path, name)
	case QCOW2:
		if err := s.possibleInternal(ctx, path, format); err != nil {
			return err
		}
		return s.takeInternal(ctx, path, prefix+name)
	case None:
		return unused(path)
	}
	return fmt.Errorf("there is no kind %q", k)
}

// regular refuses block devices: a snapshot of one is the business of the
// volume manager.
func regular(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("the disk is not a file, so it has no reflink copy")
	}
	return nil
}

// unused returns an InUseError if somebody may write to the disk.
func unused(path string) error {
	use, err := imagelock.InUse(path)
	if err != nil {
		return err
	}
	if use.Write {
		return &imagelock.InUseError{Path: path, By: use.By}
	}
	return nil
}

func (s *Snapshotter) possibleInternal(ctx context.Context, path, format string) error {
	if format != FormatQCOW2 {
		return fmt.Errorf("a %s disk has no internal snapshots", format)
	}
	_, err := s.qemu.Info(ctx, path)
	if errors.Is(err, qemuimg.ErrExternalData) {
		return errors.New("a qcow2 image with an external data file has no internal snapshots")
	}
	return err
}

func (s *Snapshotter) takeInternal(ctx context.Context, path, internal string) error {
	// qemu-img takes the locks itself; the question is asked for the sake of
	// an answer that names the VM, and that can be told from other failures.
	if err := unused(path); err != nil {
		return err
	}
	there, err := s.hasInternal(ctx, path, internal)
	if err != nil || there {
		return err
	}
	if err := s.qemu.CreateSnapshot(ctx, path, internal); err != nil {
		return errors.Join(unused(path), err)
	}
	return flush(path)
}

func (s *Snapshotter) releaseInternal(ctx context.Context, path, internal string, live LiveDeleter) error {
	there, err := s.hasInternal(ctx, path, internal)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the disk is gone, and the snapshot with it
	}
	if err != nil || !there {
		return err
	}
	use, err := imagelock.InUse(path)
	if err != nil {
		return err
	}
	switch {
	case !use.Any():
		if err := s.qemu.DeleteSnapshot(ctx, path, internal); err != nil {
			// Somebody may have opened the disk since.
			return errors.Join(unused(path), err)
		}
		return nil
	case live == nil || !use.Write:
		return &imagelock.InUseError{Path: path, By: use.By}
	}
	return live.DeleteSnapshot(ctx, path, internal)
}

func (s *Snapshotter) hasInternal(ctx context.Context, path, internal string) (bool, error) {
	info, err := s.qemu.Info(ctx, path)
	return slices.Contains(info.Snapshots, internal), err
}

// flush writes what qemu-img left in the page cache: it flushes an image when it
// closes it, but a filesystem may be mounted in ways in which that is not
// enough for the directory entry.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
