// Package sftp keeps a repository in a folder of a server that speaks SFTP, in
// restic's default layout, as package local does:
//
//	config
//	data/XX/<64 hex digits>    XX are the first two digits
//	index/ keys/ locks/ snapshots/
//	ecc/XX/<64 hex digits>     drydock's own: the parity of packs
//
// A file appears whole or not at all. It is durable when Save returns if the server
// has OpenSSH's extension fsync@openssh.com; where the server opens folders too, as
// OpenSSH does, so is its name. Any other server keeps files as well as it keeps
// them by itself. A writer that dies leaves at most a temporary file, which
// [Backend.Sweep] removes.
//
// drydock speaks SSH itself. It logs in with a key, from a file or from the agent,
// and only to a server whose host key is in a known_hosts file.
package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/pkg/sftp"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

const (
	dirMode  = 0o700
	fileMode = 0o400
	// The ends of a temporary file's name, as package atomicfile has them.
	tempPrefix = "."
	tempSuffix = ".tmp"
)

// Backend is a repository's folder on a server.
type Backend struct {
	dir  string
	pool pool
}

var (
	_ backend.Backend  = (*Backend)(nil)
	_ backend.Replacer = (*Backend)(nil)
	_ backend.Sweeper  = (*Backend)(nil)
)

// New returns the backend. Nothing is connected yet; each operation that runs at
// once with others has a connection of its own.
func New(o Options) *Backend { return &Backend{dir: o.Path, pool: pool{opts: o}} }

// path returns where file h is. A valid handle stays within the folder.
func (b *Backend) path(ctx context.Context, h backend.Handle) (string, error) {
	if err := errors.Join(ctx.Err(), h.Validate()); err != nil {
		return "", err
	}
	return path.Join(b.dir, h.Path()), nil
}

// ReadAt implements [backend.Backend].
func (b *Backend) ReadAt(ctx context.Context, h backend.Handle, p []byte, off int64) (n int, err error) {
	file, err := b.path(ctx, h)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("%s: offset %d is negative", h, off)
	}
	end := false
	err = b.pool.do(ctx, "read "+h.String(), int64(len(p)), func(s *session) error {
		f, err := s.Open(file)
		if err != nil {
			return err
		}
		n, err = f.ReadAt(p, off)
		if end = errors.Is(err, io.EOF); end {
			err = nil
		}
		return closed(err, f)
	})
	if err == nil && end {
		err = io.EOF
	}
	return n, err
}

// Stat implements [backend.Backend].
func (b *Backend) Stat(ctx context.Context, h backend.Handle) (info backend.FileInfo, err error) {
	file, err := b.path(ctx, h)
	if err != nil {
		return backend.FileInfo{}, err
	}
	err = b.pool.do(ctx, "look at "+h.String(), 0, func(s *session) error {
		fi, err := s.Lstat(file)
		if err == nil && !fi.Mode().IsRegular() {
			err = fmt.Errorf("%w: it is no regular file", fs.ErrNotExist)
		}
		if err == nil {
			info = backend.FileInfo{Name: h.Name, Size: fi.Size(), ModTime: fi.ModTime()}
		}
		return err
	})
	return info, err
}

// List implements [backend.Backend].
func (b *Backend) List(ctx context.Context, t backend.FileType, yield func(backend.FileInfo) error) error {
	if t == backend.ConfigFile {
		return backend.ListConfig(ctx, b, yield)
	}
	dirs, err := b.dirs(ctx, t)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		entries, err := b.readDir(ctx, dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !e.Mode().IsRegular() || !backend.ValidName(e.Name()) {
				continue
			}
			if err := yield(backend.FileInfo{Name: e.Name(), Size: e.Size(), ModTime: e.ModTime()}); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// dirs returns the folders that hold files of type t.
func (b *Backend) dirs(ctx context.Context, t backend.FileType) ([]string, error) {
	top := path.Join(b.dir, string(t))
	if !t.Split() {
		return []string{top}, ctx.Err()
	}
	entries, err := b.readDir(ctx, top)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() && len(e.Name()) == backend.PackDigits && e.Name() != ".." {
			dirs = append(dirs, path.Join(top, e.Name()))
		}
	}
	return dirs, nil
}

// readDir reads a folder. One that is not there is empty.
func (b *Backend) readDir(ctx context.Context, dir string) (entries []os.FileInfo, err error) {
	err = b.pool.do(ctx, "list "+dir, 0, func(s *session) error {
		entries, err = s.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return entries, err
}

// Remove implements [backend.Backend].
func (b *Backend) Remove(ctx context.Context, h backend.Handle) error {
	file, err := b.path(ctx, h)
	if err != nil {
		return err
	}
	return b.pool.do(ctx, "remove "+h.String(), 0, func(s *session) error {
		if err := s.Remove(file); err != nil {
			return err
		}
		return s.syncDir(path.Dir(file))
	})
}

// Sweep implements [backend.Sweeper].
func (b *Backend) Sweep(ctx context.Context, before time.Time) error {
	dirs := []string{b.dir}
	for _, t := range []backend.FileType{backend.KeyFile, backend.LockFile, backend.SnapshotFile, backend.IndexFile, backend.PackFile, backend.ParityFile} {
		more, err := b.dirs(ctx, t)
		if err != nil {
			return err
		}
		dirs = append(dirs, more...)
	}
	for _, dir := range dirs {
		entries, err := b.readDir(ctx, dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			ours := strings.HasPrefix(e.Name(), tempPrefix) && strings.HasSuffix(e.Name(), tempSuffix)
			if !e.Mode().IsRegular() || !ours && !backend.UnfinishedByRestic(e.Name()) || !e.ModTime().Before(before) {
				continue
			}
			left := path.Join(dir, path.Base(e.Name()))
			err := b.pool.do(ctx, "remove "+left, 0, func(s *session) error { return s.Remove(left) })
			if err != nil && !errors.Is(err, backend.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// closed closes f, and returns the first error of both: when a connection breaks both
// say the same.
func closed(err error, f io.Closer) error {
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// isStatus reports whether err is the server's answer, after which the connection is
// as good as before.
func isStatus(err error) bool {
	var status *sftp.StatusError
	return errors.As(err, &status) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrPermission)
}
