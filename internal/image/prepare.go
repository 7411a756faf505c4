package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/atomicfile"
	"github.com/drydock-vm/drydock/internal/qemuimg"
)

// The formats of a disk, always declared.
const (
	FormatRaw   = "raw"
	FormatQCOW2 = "qcow2"
)

// Target is a disk that a version replaces.
type Target struct {
	Path   string // a symlink is followed
	Format string
}

// Prepare lays v down beside the disk as PATH.next, in the disk's format, with
// its owner and permissions, and at least as large as it. The disk's VM may run.
// The bytes of v are checked against its digest: a [DigestError] says that the
// store was damaged. After an error nothing is left. What was prepared before is
// replaced.
func (s *Store) Prepare(ctx context.Context, v Version, t Target) error {
	path, err := resolve(t.Path)
	if err != nil {
		return err
	}
	old, size, err := describe(path, t.Format)
	if err != nil {
		return fmt.Errorf("prepare %s for %s: %w", v, t.Path, err)
	}
	part := path + partSuffix
	if err := remove(part); err != nil {
		return fmt.Errorf("prepare %s: %w", v, err)
	}
	size = max(size, v.Size)
	err = s.write(ctx, v, part, t.Format, size)
	if err == nil {
		err = s.place(v, path, old)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("prepare %s for %s: %w", v, t.Path, spaceError(part, size, err)), remove(part))
	}
	return nil
}

// Make writes a new disk with v on it to t.Path, where nothing is, with room for size
// bytes as the guest sees it, or as many as v has. It is on stable storage then, and
// only root may read it. The bytes of v are checked as in [Store.Prepare]; after an
// error nothing is left.
func (s *Store) Make(ctx context.Context, v Version, t Target, size int64) error {
	if t.Format != FormatRaw && t.Format != FormatQCOW2 {
		return fmt.Errorf("make a disk of %s: there is no format %q", v, t.Format)
	}
	size = max(size, v.Size)
	if err := s.write(ctx, v, t.Path, t.Format, size); err != nil {
		return errors.Join(fmt.Errorf("make a disk of %s: %w", v, spaceError(t.Path, size, err)), remove(t.Path))
	}
	return nil
}

// describe returns the attributes of an existing disk, and its size as the guest
// sees it.
func describe(path, format string) (*syscall.Stat_t, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, fmt.Errorf("find the disk: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a file: only files can be replaced", path)
	}
	switch format {
	case FormatRaw:
		return st, info.Size(), nil
	case FormatQCOW2:
		header, err := qemuimg.ReadHeader(path)
		return st, header.VirtualSize, err
	}
	return nil, 0, fmt.Errorf("there is no format %q", format)
}

// write makes the file at part from v.
func (s *Store) write(ctx context.Context, v Version, part, format string, size int64) error {
	src, err := os.Open(s.DiskPath(v))
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	if format == FormatQCOW2 {
		err = s.writeQCOW2(ctx, v, src, part, size)
	} else {
		err = writeRaw(ctx, v, dst, src, size)
	}
	if err != nil {
		return err
	}
	return dst.Sync()
}

// writeRaw shares the blocks of src where the filesystem can, and copies
// otherwise.
func writeRaw(ctx context.Context, v Version, dst, src *os.File, size int64) error {
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		if err := verify(ctx, v, src); err != nil {
			return err
		}
		return dst.Truncate(size)
	}
	if err := dst.Truncate(0); err != nil { // whatever the clone that failed has left
		return err
	}
	digest := sha256.New()
	if _, err := copySparse(ctx, dst, src, v.Size, digest); err != nil {
		return err
	}
	if err := compare(v, hexDigest(digest)); err != nil {
		return err
	}
	return dst.Truncate(size)
}

// writeQCOW2 has qemu-img convert the raw disk, which has no format that it
// could be misled by.
func (s *Store) writeQCOW2(ctx context.Context, v Version, src *os.File, part string, size int64) error {
	if err := verify(ctx, v, src); err != nil {
		return err
	}
	if err := s.qemu.ConvertRaw(ctx, src.Name(), part); err != nil {
		return full(part, err)
	}
	if size <= v.Size {
		return nil
	}
	return full(part, s.qemu.Resize(ctx, part, size))
}

// minFree is how little a filesystem has left, in bytes, when a program that
// failed on it is taken to have failed for that. qemu-img tells the reason in
// words only, and words are not compared.
const minFree = 4 << 20

// full wraps err as ENOSPC if the filesystem of path has no space left.
func full(path string, err error) error {
	var st unix.Statfs_t
	if err == nil || unix.Statfs(path, &st) != nil || st.Bavail*uint64(st.Bsize) >= minFree {
		return err
	}
	return fmt.Errorf("%w: %w", unix.ENOSPC, err)
}

// verify reads the whole of src, from its start.
func verify(ctx context.Context, v Version, src *os.File) error {
	digest := sha256.New()
	in := io.NewSectionReader(src, 0, v.Size+1) // one more: it must end there
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		_, err := io.CopyN(digest, in, chunkSize)
		if errors.Is(err, io.EOF) {
			return compare(v, hexDigest(digest))
		}
		if err != nil {
			return fmt.Errorf("read the image: %w", err)
		}
	}
}

func compare(v Version, got string) error {
	if got == v.SHA256 {
		return nil
	}
	return &DigestError{What: "image " + v.String(), Want: v.SHA256, Got: got,
		Hint: "the file in the image store was damaged: remove this version and build or import it again"}
}

// place gives the finished file the disk's owner and permissions, and its name.
func (s *Store) place(v Version, path string, old *syscall.Stat_t) error {
	part := path + partSuffix
	if err := os.Chown(part, int(old.Uid), int(old.Gid)); err != nil {
		return err
	}
	if err := os.Chmod(part, os.FileMode(old.Mode&0o777)); err != nil {
		return err
	}
	var st syscall.Stat_t
	if err := syscall.Stat(part, &st); err != nil {
		return err
	}
	// Recorded first: whatever lies at PATH.next has a record.
	err := s.locked(func() error {
		return s.recordPrepared(prepared{
			Path: path, Image: v.Image, Version: v.ID, SHA256: v.SHA256, Device: uint64(st.Dev), Inode: st.Ino,
		})
	})
	if err != nil {
		return err
	}
	if err := os.Rename(part, path+nextSuffix); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}
