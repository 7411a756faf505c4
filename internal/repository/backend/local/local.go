// Package local keeps a repository in a folder, in restic's default layout:
//
//	config
//	data/XX/<64 hex digits>    XX are the first two digits
//	index/ keys/ locks/ snapshots/
//	ecc/XX/<64 hex digits>     drydock's own: the parity of packs
//
// Folders have mode 0700 and files 0400, as restic makes them. A file appears
// whole or not at all, and is durable when Save returns. A writer that dies
// leaves at most a temporary file that restic and this package pass over, and
// that [Backend.Sweep] removes.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/atomicfile"
	"github.com/drydock-vm/drydock/internal/repository/backend"
)

const (
	dirMode  = 0o700
	fileMode = 0o400
	// readDirBatch is how many names of a folder are held at once.
	readDirBatch = 1024
)

// Backend is a repository's folder.
type Backend struct{ dir string }

var (
	_ backend.Backend  = (*Backend)(nil)
	_ backend.Replacer = (*Backend)(nil)
	_ backend.Sweeper  = (*Backend)(nil)
)

// New returns the backend of the folder dir. Nothing is touched yet; the folder
// and those in it are made when a file is saved.
func New(dir string) *Backend { return &Backend{dir} }

// path returns where file h is. A valid handle stays within the folder.
func (b *Backend) path(ctx context.Context, h backend.Handle) (string, error) {
	if err := errors.Join(ctx.Err(), h.Validate()); err != nil {
		return "", err
	}
	return filepath.Join(b.dir, filepath.FromSlash(h.Path())), nil
}

// translate adds the backend's own errors to those of the filesystem.
func translate(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", backend.ErrNotExist, err)
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w: %w", backend.ErrExist, err)
	case errors.Is(err, unix.EIO):
		return fmt.Errorf("%w: %w", backend.ErrUnreadable, err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w (the repository's disk is full: make room on it)", err)
	}
	return err
}

// Save implements [backend.Backend].
func (b *Backend) Save(ctx context.Context, h backend.Handle, data []byte) error {
	return b.write(ctx, h, data, atomicfile.Create)
}

// Replace implements [backend.Replacer].
func (b *Backend) Replace(ctx context.Context, h backend.Handle, data []byte) error {
	return b.write(ctx, h, data, atomicfile.Write)
}

func (b *Backend) write(ctx context.Context, h backend.Handle, data []byte, write func(string, []byte, os.FileMode) error) error {
	path, err := b.path(ctx, h)
	if err != nil {
		return err
	}
	err = write(path, data, fileMode)
	if errors.Is(err, fs.ErrNotExist) {
		if err = mkdirDurable(filepath.Dir(path)); err == nil {
			err = write(path, data, fileMode)
		}
	}
	return translate(err)
}

// mkdirDurable makes a folder and those above it, and syncs each new one's entry:
// a durable file in a folder that a loss of power takes away is lost.
func mkdirDurable(dir string) error {
	parent := filepath.Dir(dir)
	err := os.Mkdir(dir, dirMode)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist) && parent != dir:
		if err := mkdirDurable(parent); err != nil {
			return err
		}
		return mkdirDurable(dir)
	case err != nil:
		return err
	}
	return atomicfile.SyncDir(parent)
}

// ReadAt implements [backend.Backend].
func (b *Backend) ReadAt(ctx context.Context, h backend.Handle, p []byte, off int64) (int, error) {
	path, err := b.path(ctx, h)
	if err != nil {
		return 0, err
	}
	// A server may have put anything in the file's place: opening a FIFO must
	// not wait for a writer, and a symlink must not lead elsewhere.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, translate(err)
	}
	n, err := f.ReadAt(p, off)
	if cerr := f.Close(); cerr != nil && err == nil {
		err = cerr
	}
	return n, translate(err)
}

// Stat implements [backend.Backend].
func (b *Backend) Stat(ctx context.Context, h backend.Handle) (backend.FileInfo, error) {
	path, err := b.path(ctx, h)
	if err != nil {
		return backend.FileInfo{}, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return backend.FileInfo{}, translate(err)
	}
	if !info.Mode().IsRegular() {
		return backend.FileInfo{}, fmt.Errorf("%w: %s is no regular file", backend.ErrNotExist, path)
	}
	return backend.FileInfo{Name: h.Name, Size: info.Size(), ModTime: info.ModTime()}, nil
}

// List implements [backend.Backend].
func (b *Backend) List(ctx context.Context, t backend.FileType, yield func(backend.FileInfo) error) error {
	if t == backend.ConfigFile {
		return backend.ListConfig(ctx, b, yield)
	}
	dirs, err := b.dirs(t)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := listDir(ctx, dir, yield); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// dirs returns the folders that hold files of type t.
func (b *Backend) dirs(t backend.FileType) ([]string, error) {
	top := filepath.Join(b.dir, string(t))
	if !t.Split() {
		return []string{top}, nil
	}
	entries, err := os.ReadDir(top)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() && len(e.Name()) == backend.PackDigits {
			dirs = append(dirs, filepath.Join(top, e.Name()))
		}
	}
	return dirs, nil
}

// listDir calls yield for each regular file of a folder that has a valid name.
func listDir(ctx context.Context, dir string, yield func(backend.FileInfo) error) error {
	f, err := os.Open(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	for {
		entries, err := f.ReadDir(readDirBatch)
		if len(entries) == 0 {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !e.Type().IsRegular() || !backend.ValidName(e.Name()) {
				continue
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if err != nil {
				return err
			}
			if err := yield(backend.FileInfo{Name: e.Name(), Size: info.Size(), ModTime: info.ModTime()}); err != nil {
				return err
			}
		}
	}
}

// Remove implements [backend.Backend].
func (b *Backend) Remove(ctx context.Context, h backend.Handle) error {
	path, err := b.path(ctx, h)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return translate(err)
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// Sweep implements [backend.Sweeper].
func (b *Backend) Sweep(ctx context.Context, before time.Time) error {
	dirs := []string{b.dir}
	for _, t := range []backend.FileType{backend.KeyFile, backend.LockFile, backend.SnapshotFile, backend.IndexFile, backend.PackFile, backend.ParityFile} {
		more, err := b.dirs(t)
		if err != nil {
			return err
		}
		dirs = append(dirs, more...)
	}
	for _, dir := range dirs {
		if err := errors.Join(ctx.Err(), atomicfile.RemoveLeftovers(dir, before), removeRestics(dir, before)); err != nil {
			return err
		}
	}
	return nil
}

// removeRestics removes from a folder what a restic that was killed has left in it before
// the given time.
func removeRestics(dir string, before time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !backend.UnfinishedByRestic(e.Name()) {
			continue
		}
		info, err := e.Info()
		if err == nil && info.ModTime().Before(before) {
			err = os.Remove(filepath.Join(dir, e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
