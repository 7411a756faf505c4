package restore

import (
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
)

// firstName is the name at which a file with several was restored.
type firstName struct {
	path string // in the target
	left uint32 // how many names may still come
}

// leaf restores what is no folder. It gets its name when it is whole.
func (r *restorer) leaf(d *folder, name string, inode disk.Inode) error {
	if _, err := d.root.Lstat(name); err == nil && !r.opts.Overwrite {
		return onTarget(&fs.PathError{Op: "create", Path: name, Err: fs.ErrExist})
	}
	if done, err := r.link(d, name, inode); done || err != nil {
		return err
	}
	if r.kept(d, name, inode) {
		r.report.Kept++
		r.count(inode)
		r.noteFlags(d.join(name), inode)
		r.first(d, name, inode)
		return nil
	}
	at := place{d, r.temp}
	made, err := r.create(at, d.join(name), inode)
	if !made && err == nil {
		return nil // left out
	}
	if err == nil {
		err = r.attributes(at, d.join(name), inode)
	}
	if err == nil {
		err = onTarget(d.root.Rename(r.temp, name))
	}
	if err != nil {
		_ = d.root.Remove(r.temp)
		return err
	}
	r.count(inode)
	r.noteFlags(d.join(name), inode)
	r.first(d, name, inode)
	return nil
}

// first remembers the first name of a file that may have more.
func (r *restorer) first(d *folder, name string, inode disk.Inode) {
	if inode.Links > 1 && len(r.links) < maxPendingLinks {
		path := strings.TrimPrefix(string(d.join(name)), "/")
		r.links[inode.Ino] = &firstName{path, inode.Links - 1}
	}
}

func (r *restorer) count(inode disk.Inode) {
	switch inode.Type() {
	case disk.ModeRegular:
		r.report.Files++
		r.report.Bytes += inode.Size
	case disk.ModeSymlink:
		r.report.Symlinks++
	default:
		r.report.Specials++
	}
}

// link makes a further name of what was restored already. When that does not work
// there is a warning, and the caller makes a copy.
func (r *restorer) link(d *folder, name string, inode disk.Inode) (done bool, err error) {
	first := r.links[inode.Ino]
	if first == nil {
		return false, nil
	}
	if first.left--; first.left == 0 {
		delete(r.links, inode.Ino)
	}
	path := string(d.join(name))[1:]
	temp := strings.TrimSuffix(path, name) + r.temp
	err = r.root.Link(first.path, temp)
	if err == nil {
		err = d.root.Rename(r.temp, name)
		// It is still there after an error, and when both were one file already:
		// rename(2) does nothing then.
		_ = d.root.Remove(r.temp)
		if err == nil {
			r.report.Links++
			return true, nil
		}
	}
	if err = onTarget(err); fatal(err) {
		return false, err
	}
	r.warn(d.join(name), fmt.Errorf("it is a copy, and not a hardlink: %w", err))
	return false, nil
}

// create makes what has no name in the target yet. It reports false for what is
// left out on purpose.
func (r *restorer) create(at place, path []byte, inode disk.Inode) (made bool, err error) {
	switch inode.Type() {
	case disk.ModeRegular:
		return true, r.file(at, inode)
	case disk.ModeSymlink:
		target, err := r.fsys.Readlink(inode.Ino)
		if err != nil {
			return false, err
		}
		return true, onTarget(at.in.root.Symlink(string(target), at.name))
	case disk.ModeFIFO, disk.ModeSocket:
		return true, onTarget(mknod(at, inode.Type(), 0))
	case disk.ModeBlock, disk.ModeChar:
		if !r.opts.Devices {
			r.report.LeftOut.Devices++
			return false, nil
		}
		return true, onTarget(mknod(at, inode.Type(), int(unix.Mkdev(inode.Rdev.Major, inode.Rdev.Minor))))
	}
	return false, r.damaged(fmt.Sprintf("inode %d", inode.Ino), "its mode is %#o, a type that does not exist", inode.Mode)
}

func mknod(at place, kind uint32, device int) error {
	if err := unix.Mknodat(int(at.in.fd.Fd()), at.name, kind|0o600, device); err != nil {
		return fmt.Errorf("make a special file: %w", err)
	}
	return nil
}
