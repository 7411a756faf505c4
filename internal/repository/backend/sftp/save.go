package sftp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// Save implements [backend.Backend].
func (b *Backend) Save(ctx context.Context, h backend.Handle, data []byte) error {
	file, err := b.path(ctx, h)
	if err != nil {
		return err
	}
	return b.pool.do(ctx, "save "+h.String(), 0, func(s *session) error {
		if _, err := s.Lstat(file); err == nil {
			return fs.ErrExist
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return s.saveAs(file, data, s.renameNew)
	})
}

// posixRename is the extension by which a file takes the place of another.
const posixRename = "posix-rename@openssh.com"

// Replace implements [backend.Replacer].
func (b *Backend) Replace(ctx context.Context, h backend.Handle, data []byte) error {
	file, err := b.path(ctx, h)
	if err != nil {
		return err
	}
	return b.pool.do(ctx, "replace "+h.String(), 0, func(s *session) error {
		if _, ok := s.HasExtension(posixRename); !ok {
			return fmt.Errorf("%w: the server does not know %s, without which a file cannot take the place of another at once", backend.ErrRefused, posixRename)
		}
		return s.saveAs(file, data, s.PosixRename)
	})
}

// saveAs writes a temporary file and gives it its name by rename.
func (s *session) saveAs(file string, data []byte, rename func(from, to string) error) error {
	dir := path.Dir(file)
	temp := path.Join(dir, tempPrefix+path.Base(file)+"."+rand.Text()+tempSuffix)
	err := s.writeFile(temp, data)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.mkdir(dir); err == nil {
			err = s.writeFile(temp, data)
		}
	}
	if err == nil {
		err = rename(temp, file)
	}
	if err != nil {
		// The cause counts. What stays is swept.
		_ = s.Remove(temp)
		return s.full(dir, len(data), err)
	}
	return s.syncDir(dir)
}

// writeFile makes a new file, whole and durable.
func (s *session) writeFile(name string, data []byte) error {
	f, err := s.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(fileMode)
	}
	if err == nil && s.canSync {
		err = f.Sync()
	}
	if err := closed(err, f); err != nil {
		return err
	}
	info, err := s.Lstat(name)
	if err == nil && info.Size() != int64(len(data)) {
		err = fmt.Errorf("wrote %d bytes, and the file has %d", len(data), info.Size())
	}
	return err
}

// renameNew renames, and fails where to is there. That is what SSH_FXP_RENAME does
// in version 3 of the protocol, and OpenSSH keeps to it; posix-rename@openssh.com
// would replace the file.
func (s *session) renameNew(from, to string) error {
	err := s.Rename(from, to)
	if err == nil || !isStatus(err) {
		return err
	}
	// The protocol has no word for "is there already".
	if _, serr := s.Lstat(to); serr == nil {
		return fs.ErrExist
	}
	return err
}

// mkdir makes a folder and those above it.
func (s *session) mkdir(dir string) error {
	if info, err := s.Stat(dir); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%w: %s is no folder", backend.ErrRefused, dir)
		}
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := path.Dir(dir)
	if parent != dir && parent != "." {
		if err := s.mkdir(parent); err != nil {
			return err
		}
	}
	if err := s.Mkdir(dir); err != nil {
		// Another may have been faster.
		if info, serr := s.Stat(dir); serr == nil && info.IsDir() {
			return nil
		}
		return err
	}
	if err := s.Chmod(dir, dirMode); err != nil {
		return err
	}
	return s.syncDir(parent)
}

// syncDir makes the entries of a folder durable, on servers that open folders.
func (s *session) syncDir(dir string) error {
	if !s.canSync {
		return nil
	}
	f, err := s.Open(dir)
	if err == nil {
		err = closed(f.Sync(), f)
	}
	if err != nil && isStatus(err) {
		return nil // there is no other way
	}
	return err
}

// full says so when err is of a disk that has no room for size bytes: the protocol
// knows "failure" only.
func (s *session) full(dir string, size int, err error) error {
	if !isStatus(err) || errors.Is(err, fs.ErrExist) {
		return err
	}
	vfs, verr := s.StatVFS(dir)
	if verr == nil && vfs.Bavail*vfs.Frsize < uint64(size) {
		return fmt.Errorf("%w: the server's disk has %d bytes left, and the file has %d: %w", backend.ErrRefused, vfs.Bavail*vfs.Frsize, size, err)
	}
	return err
}
