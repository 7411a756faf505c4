// Package atomicfile writes files that are whole or not there: after a crash at
// any moment the path has the old content or the new one, or, with [Create],
// none or the new one.
//
// The content goes to a temporary file in the same folder, which is synced and
// then given its name; then the folder is synced. A process that dies on the way
// leaves a file named ".NAME.NUMBER.tmp", which [RemoveLeftovers] removes.
//
// From 1 MiB on, content passes the page cache by where the filesystem can do that: it
// is synced at once, so that the cache would cost a copy and push out what guests use.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The ends of a temporary file's name.
const (
	tempPrefix = "."
	tempSuffix = ".tmp"
)

// Write makes data the content of the file at path, with the given permissions,
// whatever the umask is. When it returns nil the content is durable. The folder
// must exist; an existing file is replaced, and keeps its content when Write
// fails.
func Write(path string, data []byte, mode os.FileMode) error {
	return write(path, data, mode, os.Rename)
}

// Create does what Write does for a path that is not there. One that is, of
// whatever type, is left alone and is [fs.ErrExist]. Of several that create one
// path at once exactly one succeeds.
func Create(path string, data []byte, mode os.FileMode) error {
	return write(path, data, mode, RenameNew)
}

// write writes a temporary file and gives it its name by rename.
func write(path string, data []byte, mode os.FileMode, rename func(from, to string) error) (err error) {
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, tempPrefix+filepath.Base(path)+".*"+tempSuffix)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(temp.Name()))
		}
	}()
	if err = fill(temp, data, mode); err != nil {
		_ = temp.Close() // it is removed
		return err
	}
	if err = temp.Close(); err != nil {
		return err
	}
	if err := rename(temp.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// fill makes data the durable content of an empty file. An error is the first one, and
// does not say the name, which nobody knows.
func fill(f *os.File, data []byte, mode os.FileMode) error {
	err := writeAll(f, data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = checkLength(f, len(data))
	}
	var named *fs.PathError
	if errors.As(err, &named) {
		return named.Err
	}
	return err
}

const (
	// directSize is from where on content passes the page cache by, in bytes.
	directSize = 1 << 20
	// directBlock divides what is written past it: no disk has larger sectors.
	directBlock = 4 << 10
)

// writeAll writes data to an empty file. A filesystem or a disk that refuses to be
// written to past the page cache is written to through it.
func writeAll(f *os.File, data []byte) error {
	if len(data) >= directSize && setDirect(f, true) == nil {
		n, err := f.Write(data[:len(data)&^(directBlock-1)])
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			err = nil
		}
		if err = errors.Join(err, setDirect(f, false)); err != nil {
			return err
		}
		data = data[n:]
	}
	_, err := f.Write(data)
	return err
}

// setDirect says whether writing is to pass the page cache by.
func setDirect(f *os.File, on bool) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		var flags int
		if flags, failed = unix.FcntlInt(fd, unix.F_GETFL, 0); failed != nil {
			return
		}
		if flags &^= unix.O_DIRECT; on {
			flags |= unix.O_DIRECT
		}
		_, failed = unix.FcntlInt(fd, unix.F_SETFL, flags)
	})
	return errors.Join(err, failed)
}

// checkLength makes sure that the file got what was written. Network filesystems
// have lost the end of a file, and said so to nobody but stat.
func checkLength(f *os.File, want int) error {
	info, err := f.Stat()
	if err == nil && info.Size() != int64(want) {
		err = fmt.Errorf("wrote %d bytes, and the file has %d", want, info.Size())
	}
	return err
}

// RenameNew renames, and fails with [fs.ErrExist] where to is there. The folder is
// not synced: see [SyncDir].
func RenameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// NFS and some others cannot; a hard link does not replace either.
		if err = unix.Link(from, to); err == nil {
			err = unix.Unlink(from)
		}
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// SyncDir makes the entries of a folder durable: what was created, renamed or
// removed in it.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		err = nil // SMB and some FUSE filesystems have nothing to sync here
	}
	return errors.Join(err, f.Close())
}

// RemoveLeftovers removes from a folder the temporary files that dead processes
// left there, as far as they were last written before the given time. A folder
// that is not there has none.
func RemoveLeftovers(dir string, before time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	var errs []error
	for _, e := range entries {
		if !e.Type().IsRegular() || !strings.HasPrefix(e.Name(), tempPrefix) || !strings.HasSuffix(e.Name(), tempSuffix) {
			continue
		}
		info, err := e.Info()
		if err == nil && info.ModTime().Before(before) {
			err = os.Remove(filepath.Join(dir, e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
