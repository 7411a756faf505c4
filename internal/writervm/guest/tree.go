//go:build linux

package guest

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/writervm/wire"
)

// tree writes what it is told.
type tree struct {
	root int // descriptor of the root directory
	warn func(path []byte, err error) error

	folders []folder // where it is: the root directory first
	skipped int      // how many folders it is in that could not be made
	file    openFile
	links   map[uint64]*linked
	flagged []flagged
	zeros   []byte // see room

	contents map[uint64]unix.FileHandle // of files whose content others may share

	btrfs    bool      // it has subvolumes
	stage    *stage    // those that were made already, or nil
	readOnly []flagged // those that are to be, when all is written
	chosen   uint64    // the number of the one that is to be the default, or 0
}

// folder is one that things are made in. It gets its attributes at its end: what comes
// into it changes its times, and its ACL would be theirs.
type folder struct {
	fd   int
	made wire.File
}

// openFile is the regular file that gets its content. fd is -1 if it could not be made.
type openFile struct {
	open  bool
	fd    int
	made  wire.File
	sized bool // it has its size
}

// linked is a file that may get further names. A handle costs less than a descriptor,
// and there may be a million.
type linked struct {
	handle unix.FileHandle
	left   uint32 // how many names may still come
}

func (t *tree) close() {
	for i := range t.folders {
		if i > 0 { // the root is the caller's
			unix.Close(t.folders[i].fd)
		}
	}
	if t.file.open && t.file.fd >= 0 {
		unix.Close(t.file.fd)
	}
	if t.stage != nil {
		unix.Close(t.stage.fd)
	}
}

// read writes until all is there.
func (t *tree) read(l *link) error {
	for {
		kind, payload, err := l.next()
		if err != nil {
			return err
		}
		if kind == wire.Finish {
			if len(t.folders) > 0 || t.file.open {
				return fmt.Errorf("%w: it ends within a folder", wire.ErrBroken)
			}
			if err := t.setFlags(); err != nil {
				return err
			}
			return t.finishSubvolumes()
		}
		if err := t.message(kind, payload); err != nil {
			return err
		}
	}
}

func (t *tree) message(kind wire.Kind, payload []byte) error {
	if kind == wire.Subvolumes && len(t.folders) == 0 && t.stage == nil {
		return t.number(payload)
	}
	within := slices.Contains([]wire.Kind{wire.Data, wire.Room, wire.Same, wire.End, wire.Abandon}, kind)
	if within != t.file.open || kind != wire.Node && len(t.folders) == 0 {
		return fmt.Errorf("%w: %q at this place", wire.ErrBroken, kind)
	}
	switch kind {
	case wire.Node:
		return t.node(payload)
	case wire.Data:
		return t.data(payload)
	case wire.Room:
		return t.room(payload)
	case wire.Same:
		return t.share(payload)
	case wire.End:
		return t.end(payload)
	case wire.Abandon:
		return t.abandon()
	case wire.Link:
		return t.link(payload)
	case wire.Up:
		return t.up()
	}
	return fmt.Errorf("%w: %q", wire.ErrBroken, kind)
}

// keep returns f with bytes of its own.
func keep(f *wire.File) wire.File {
	k := *f
	k.Name, k.Xattrs = bytes.Clone(f.Name), nil
	for _, x := range f.Xattrs {
		k.Xattrs = append(k.Xattrs, disk.Xattr{Name: bytes.Clone(x.Name), Value: bytes.Clone(x.Value)})
	}
	return k
}

func (t *tree) node(payload []byte) error {
	f, err := wire.DecodeFile(payload)
	if err != nil {
		return err
	}
	if len(t.folders) == 0 {
		if f.Type() != disk.ModeDir || len(f.Name) > 0 {
			return fmt.Errorf("%w: the first is not the root directory", wire.ErrBroken)
		}
		t.folders = append(t.folders, folder{t.root, keep(f)})
		return nil
	}
	if t.skipped == 0 {
		err = t.make(f)
		if err == nil {
			return nil
		}
		if err = t.soft(f.Name, err); err != nil {
			return err
		}
	}
	// What it is not in is passed over, with what would come into it.
	switch f.Type() {
	case disk.ModeDir:
		t.skipped++
	case disk.ModeRegular:
		t.file = openFile{open: true, fd: -1}
	}
	return nil
}

// make makes a file, in the folder that is open.
func (t *tree) make(f *wire.File) error {
	at, name, mode := t.at(), string(f.Name), f.Mode&permissions
	switch f.Type() {
	case disk.ModeDir:
		if err := t.makeFolder(at, f); err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
		fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a folder: %w", err)
		}
		t.folders = append(t.folders, folder{fd, keep(f)})
		return nil
	case disk.ModeRegular:
		return t.open(f)
	case disk.ModeSymlink:
		if err := unix.Symlinkat(string(f.Target), at, name); err != nil {
			return fmt.Errorf("make a symlink: %w", err)
		}
	default:
		if err := unix.Mknodat(at, name, f.Type()|mode, int(unix.Mkdev(f.Rdev.Major, f.Rdev.Minor))); err != nil {
			return fmt.Errorf("make a special file: %w", err)
		}
	}
	return t.complete(object{fd: -1, at: at, name: name}, f)
}

func (t *tree) open(f *wire.File) error {
	fd, err := unix.Openat(t.at(), string(f.Name), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, f.Mode&permissions)
	if err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	t.file = openFile{open: true, fd: fd, made: keep(f)}
	return nil
}

// size gives the file its size. One that is written in pieces has it before the first:
// what is written beyond the end makes XFS reserve more than is written.
func (t *tree) size() error {
	f := &t.file
	if f.sized || f.fd < 0 {
		return nil
	}
	f.sized = true
	if err := unix.Ftruncate(f.fd, f.made.Size); err != nil {
		return t.failed(f.made.Name, fmt.Errorf("make a file of %d bytes: %w", f.made.Size, err))
	}
	return nil
}

func (t *tree) data(payload []byte) error {
	off, p, err := wire.Number(payload)
	if err != nil {
		return err
	}
	if off == 0 && int64(len(p)) == t.file.made.Size {
		t.file.sized = true
	}
	if t.file.fd < 0 {
		return nil
	}
	if err := t.size(); err != nil {
		return err
	}
	for len(p) > 0 {
		n, err := unix.Pwrite(t.file.fd, p, int64(off))
		if err != nil {
			return t.failed(t.file.made.Name, fmt.Errorf("write content: %w", err))
		}
		p, off = p[n:], off+uint64(n)
	}
	return nil
}

func (t *tree) end(payload []byte) error {
	t.file.sized = t.file.sized || t.file.made.Size == 0
	if err := t.size(); err != nil {
		return err
	}
	file := t.file
	t.file = openFile{}
	if file.fd < 0 {
		return nil
	}
	err := t.complete(object{fd: file.fd, at: t.at(), name: string(file.made.Name)}, &file.made)
	if err == nil && len(payload) > 0 {
		err = t.noteContent(&file.made)
	}
	if cerr := unix.Close(file.fd); err == nil && cerr != nil {
		err = t.failed(file.made.Name, cerr)
	}
	return err
}

func (t *tree) abandon() error {
	file := t.file
	t.file = openFile{}
	if file.fd < 0 {
		return nil
	}
	unix.Close(file.fd)
	if err := unix.Unlinkat(t.at(), string(file.made.Name), 0); err != nil {
		return t.failed(file.made.Name, fmt.Errorf("remove what is damaged: %w", err))
	}
	return nil
}

func (t *tree) up() error {
	if t.skipped > 0 {
		t.skipped--
		return nil
	}
	last := len(t.folders) - 1
	done := t.folders[last]
	o := object{fd: done.fd, at: done.fd, name: "."} // the root has no name in another
	var err error
	if last == 0 {
		err = t.unstage()
	}
	if err == nil {
		err = t.attributes(o, &done.made)
	}
	if err == nil {
		err = t.noteFlags(o, &done.made)
	}
	if err == nil && last > 0 { // the root is the top level
		err = t.noteSubvolume(done.fd, &done.made)
	}
	t.folders = t.folders[:last]
	if last > 0 {
		unix.Close(done.fd)
	}
	return err
}

// complete gives what is made, and no folder, its attributes, and remembers it if it
// has other names.
func (t *tree) complete(o object, f *wire.File) error {
	if err := t.attributes(o, f); err != nil {
		return err
	}
	if err := t.noteFlags(o, f); err != nil {
		return err
	}
	if f.Links < 2 {
		return nil
	}
	handle, _, err := unix.NameToHandleAt(o.at, o.name, 0)
	if err != nil {
		return t.failed(f.Name, fmt.Errorf("remember a file with several names: %w", err))
	}
	t.links[f.Ino] = &linked{handle, f.Links - 1}
	return nil
}

// link makes a further name of what was made already.
func (t *tree) link(payload []byte) error {
	ino, name, err := wire.Number(payload)
	if err != nil || t.skipped > 0 {
		return err
	}
	first := t.links[ino]
	if first == nil { // it could not be made, or lies in what could not
		return t.soft(name, fmt.Errorf("make a further name: its first is not there: %w", unix.ENOENT))
	}
	if first.left--; first.left == 0 {
		delete(t.links, ino)
	}
	fd, err := unix.OpenByHandleAt(t.root, first.handle, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return t.failed(name, fmt.Errorf("find the first name: %w", err))
	}
	defer unix.Close(fd)
	if err := unix.Linkat(fd, "", t.at(), string(name), unix.AT_EMPTY_PATH); err != nil {
		return t.soft(name, fmt.Errorf("make a further name: %w", err))
	}
	return nil
}

// at is the folder that things are made in.
func (t *tree) at() int { return t.folders[len(t.folders)-1].fd }

// path is that of a name in the folder that is open, or of the folder if it is empty.
func (t *tree) path(name []byte) []byte {
	var p []byte
	for _, f := range t.folders[1:] {
		p = append(append(p, '/'), f.made.Name...)
	}
	if len(name) > 0 {
		p = append(append(p, '/'), name...)
	}
	return p
}

// failed is an error that ends the work, with where it was.
func (t *tree) failed(name []byte, err error) error {
	return &placeError{t.path(name), err}
}

// soft warns of an error, unless it ends the work.
func (t *tree) soft(name []byte, err error) error { return t.soften(t.path(name), err) }

// soften is the same for a file that is not in the folder that is open.
func (t *tree) soften(path []byte, err error) error {
	if fatal(err) {
		return &placeError{path, err}
	}
	return t.warn(path, err)
}

// placeError is an error with the path that it is of.
type placeError struct {
	path []byte
	err  error
}

func (e *placeError) Error() string { return e.err.Error() }
func (e *placeError) Unwrap() error { return e.err }
