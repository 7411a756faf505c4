package rebuild

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/drydock-vm/drydock/internal/definition"
)

// newEnding is that of the name of what is not whole yet, or not in its place.
const newEnding = ".drydock-new"

// restored reports whether what is at an item's path is what it should be: a disk that
// an earlier run has recorded, a file with the same content.
func (p *Plan) restored(it *Item) (bool, error) {
	switch it.From {
	case FromConfig:
		text, err := os.ReadFile(it.Path)
		return bytes.Equal(text, p.opts.Config.Text), err
	case FromFile:
		return sameFile(it.Path, it.file)
	}
	info, err := os.Stat(it.Path)
	if err != nil {
		return false, err
	}
	was, ok := p.record.Disks[it.Path]
	return ok && was == identityOf(info), nil
}

// sameFile reports whether a file of the host is there with that content and mode.
func sameFile(path string, want *definition.File) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() != want.Size || uint32(info.Mode().Perm()) != want.Mode {
		return false, err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)) == want.SHA256, err
}

// hostFile restores a file of the host.
func (p *Plan) hostFile(it *Item) error {
	in, err := definition.Open(p.opts.Tree, it.file)
	if err != nil {
		return err
	}
	h := sha256.New()
	return it.write(io.TeeReader(in, h), it.file.Owner, func() error {
		if hex.EncodeToString(h.Sum(nil)) != it.file.SHA256 {
			return fmt.Errorf("what the backup has of it does not have the digest that it should have: %w", definition.ErrInvalid)
		}
		return nil
	})
}

// config writes the configuration, if it is still the one that the new one was made
// from: the disks can have taken hours.
func (p *Plan) config(it *Item) error {
	c := p.opts.Config
	owner := definition.Owner{Mode: 0o600}
	if it.Action == Replace {
		info, err := os.Stat(it.Path)
		if err != nil {
			return err
		}
		owner = definition.OwnerOf(info)
		if now, err := os.ReadFile(it.Path); err != nil || !bytes.Equal(now, c.Was) {
			return errors.Join(fmt.Errorf("%s has changed since the restore began (start it again: what is restored stays)", it.Path), err)
		}
	}
	return it.write(bytes.NewReader(c.Text), owner, func() error { return nil })
}

// write writes a file through the folder that the user named. It gets its name when it
// is whole, durable and checked.
func (it *Item) write(in io.Reader, owner definition.Owner, check func() error) error {
	if err := os.MkdirAll(it.place.base, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(it.place.base)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(filepath.Dir(it.place.rel), 0o755); err != nil {
		return fmt.Errorf("%w (a symlink that leads out of %s is not followed)", err, it.place.base)
	}
	part := it.place.rel + newEnding
	if err := root.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	if err == nil {
		err = check()
	}
	if err == nil && os.Geteuid() == 0 {
		err = f.Chown(int(owner.UID), int(owner.GID))
	}
	if err == nil {
		err = f.Chmod(fs.FileMode(owner.Mode) & fs.ModePerm)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, root.Remove(part))
	}
	return it.rename(root, part)
}

// rename puts what is whole in its place, and keeps what is there if that is replaced.
func (it *Item) rename(root *os.Root, part string) error {
	name := it.place.rel
	if it.Action == Replace {
		if err := it.keep(root); err != nil {
			return err
		}
	} else if _, err := root.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s: %w", it.Path, fs.ErrExist), err)
	}
	if err := root.Rename(part, name); err != nil {
		return err
	}
	dir, err := root.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// keep gives what is there its second name, unless a run that was cut off has done so.
// An earlier configuration of that name goes: all of it is in the later one.
func (it *Item) keep(root *os.Root) error {
	name, kept := it.place.rel, it.place.rel+previous
	err := root.Link(name, kept)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	there, statErr := root.Lstat(name)
	before, beforeErr := root.Lstat(kept)
	if err := errors.Join(statErr, beforeErr); err != nil {
		return err
	}
	switch {
	case os.SameFile(there, before):
		return nil
	case it.From != FromConfig:
		return err
	}
	if err := root.Remove(kept); err != nil {
		return err
	}
	return root.Link(name, kept)
}
