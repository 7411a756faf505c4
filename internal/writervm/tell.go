package writervm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/writervm/wire"
)

const (
	// maxDepth is how deep folders may lie in each other: a path of 4096 bytes, the
	// longest that Linux takes in one go, has 2048 at most. The guest has a descriptor
	// for each.
	maxDepth = 2048
	// maxXattrs bounds the extended attributes of a file, in bytes.
	maxXattrs = wire.MaxToGuest - maxOther
	maxOther  = 128 << 10 // all else of a file
	// maxPendingLinks is how many files are remembered until their last name was seen.
	// Further ones are written once for each name.
	maxPendingLinks = 1 << 20
	// maxName and maxTarget bound a name and the target of a symlink, in bytes. Linux
	// takes 255 and 4095, and says so of what is longer.
	maxName   = 4 << 10
	maxTarget = 64 << 10
	// maxSubvolumes is how many subvolumes are told of before they come: as many as there are
	// numbers that a backup knows of.
	maxSubvolumes = 1 << 16
	// maxRoom is how much a guest is told to make room for at once, in bytes: what it
	// answers takes a time that is known.
	maxRoom = 64 << 20
)

// errLink is of a machine that does not take more.
var errLink = errors.New("tell the machine what to write")

// teller walks a tree and tells it.
type teller struct {
	run   *run
	ctx   context.Context
	fsys  disk.Filesystem
	to    *bufio.Writer
	buf   []byte // a message
	piece []byte // of content

	visited map[uint64]bool   // folders
	links   map[uint64]uint32 // how many names may still come of what was told
	same    sharer
}

// tell tells the machine all that is in fsys.
func (r *run) tell(ctx context.Context, fsys disk.Filesystem) error {
	t := &teller{
		run: r, ctx: ctx, fsys: fsys, to: bufio.NewWriterSize(r.machine.link, wire.MaxData),
		piece: make([]byte, wire.MaxData), visited: map[uint64]bool{}, links: map[uint64]uint32{}, same: r.newSharer(fsys),
	}
	root := fsys.Info().Root
	inode, err := fsys.Inode(root)
	if err != nil {
		return err
	}
	if err := t.subvolumes(); err != nil {
		return err
	}
	if err := t.file(disk.DirEntry{Ino: root}, inode, nil, 0); err != nil {
		return err
	}
	r.finished.Store(true)
	if err := t.send(wire.Finish); err != nil {
		return err
	}
	r.wait.begin() // until the machine is done
	if err := t.to.Flush(); err != nil {
		return fmt.Errorf("%w: %w", errLink, err)
	}
	return nil
}

// subvolumes tells the numbers of all subvolumes, which btrfs gives in the order in which
// they are made.
func (t *teller) subvolumes() error {
	if t.run.fstype != "btrfs" || len(t.run.opts.Subvolumes) == 0 {
		return nil
	}
	ids := slices.Compact(slices.Sorted(slices.Values(t.run.opts.Subvolumes)))
	return t.send(wire.Subvolumes, wire.AppendSubvolumes(nil, ids[:min(len(ids), maxSubvolumes)]))
}

func (t *teller) send(kind wire.Kind, payload ...[]byte) error {
	if t.ctx.Err() != nil {
		return context.Cause(t.ctx)
	}
	t.buf = wire.Append(t.buf[:0], kind, payload...)
	t.run.wait.allow(int64(len(t.buf)))
	t.run.wait.begin()
	defer t.run.wait.end()
	if _, err := t.to.Write(t.buf); err != nil {
		return fmt.Errorf("%w: %w", errLink, err)
	}
	t.run.alive.Add(1)
	return nil
}

// folder tells what is in a folder. path has a slash at its end.
func (t *teller) folder(ino uint64, path []byte, depth int) error {
	entries, err := disk.List(t.fsys, ino)
	if err := t.fault(path, ino, err); err != nil {
		return err
	}
	for _, e := range entries {
		below := append(path[:len(path):len(path)], e.Name...)
		if err := t.fault(below, e.Ino, t.entry(e, below, depth)); err != nil {
			return err
		}
	}
	return nil
}

// fault notes what is damaged, and returns any other error.
func (t *teller) fault(path []byte, ino uint64, err error) error {
	var d *disk.Error
	if err == nil || t.ctx.Err() != nil || !errors.As(err, &d) || ino == t.fsys.Info().Root {
		return err
	}
	if t.run.opts.Damaged != nil {
		t.run.opts.Damaged(path, ino, err)
	}
	return nil
}

func (t *teller) entry(e disk.DirEntry, path []byte, depth int) error {
	if n := string(e.Name); n == "" || n == "." || n == ".." || bytes.ContainsAny(e.Name, "/\x00") {
		return t.damaged(disk.ErrCorrupt, "directory", "the name %.300q is not one that a folder can hold", e.Name)
	}
	if len(e.Name) > maxName {
		return t.damaged(disk.ErrLimit, "directory", "a name has %d bytes, more than %d", len(e.Name), maxName)
	}
	inode, err := t.fsys.Inode(e.Ino)
	if err != nil {
		return err
	}
	if left, told := t.links[e.Ino]; told && inode.Type() != disk.ModeDir {
		if left--; left == 0 {
			delete(t.links, e.Ino)
		} else {
			t.links[e.Ino] = left
		}
		return t.send(wire.Link, wire.AppendNumber(nil, e.Ino), e.Name)
	}
	return t.file(e, inode, path, depth)
}

// file tells of a file of any type, and of what is in it.
func (t *teller) file(e disk.DirEntry, inode disk.Inode, path []byte, depth int) error {
	if len(t.links) >= maxPendingLinks {
		inode.Links = 1
	}
	f := &wire.File{Inode: inode, Name: e.Name}
	var err error
	if f.Xattrs, err = t.xattrs(path, e.Ino); err != nil {
		return err
	}
	switch inode.Type() {
	case disk.ModeDir:
		if t.visited[e.Ino] || depth > maxDepth {
			return t.damaged(disk.ErrLimit, "directory", "it is in two places, or more than %d folders deep", maxDepth)
		}
		t.visited[e.Ino] = true
		if err := t.node(f); err != nil {
			return err
		}
		t.same.within(f, 1)
		if err := t.folder(e.Ino, append(path[:len(path):len(path)], '/'), depth+1); err != nil {
			return err
		}
		t.same.within(f, -1)
		return t.send(wire.Up)
	case disk.ModeRegular:
		err = t.regular(f)
	case disk.ModeSymlink:
		if f.Target, err = t.fsys.Readlink(e.Ino); err == nil && len(f.Target) > maxTarget {
			err = t.damaged(disk.ErrLimit, "symlink", "its target has %d bytes, more than %d", len(f.Target), maxTarget)
		}
		if err == nil {
			err = t.node(f)
		}
	case disk.ModeBlock, disk.ModeChar, disk.ModeFIFO, disk.ModeSocket:
		err = t.node(f)
	default:
		err = t.damaged(disk.ErrCorrupt, fmt.Sprintf("inode %d", e.Ino), "its mode is %#o, a type that does not exist", inode.Mode)
	}
	if err == nil && inode.Links > 1 {
		t.links[e.Ino] = inode.Links - 1
	}
	return err
}

func (t *teller) node(f *wire.File) error { return t.send(wire.Node, wire.AppendFile(nil, f)) }

// xattrs returns the extended attributes of a file, as far as a message has room.
func (t *teller) xattrs(path []byte, ino uint64) ([]disk.Xattr, error) {
	list, err := t.fsys.Xattrs(ino)
	if err != nil {
		return nil, err
	}
	const overhead = 8
	size := 0
	for i, x := range list {
		if size += len(x.Name) + len(x.Value) + overhead; size > maxXattrs {
			if t.run.opts.Warn != nil {
				t.run.opts.Warn(path, fmt.Sprintf("its extended attributes have more than %d bytes; some are left out", maxXattrs))
			}
			return list[:i], nil
		}
	}
	return list, nil
}

// regular tells of a regular file. One that turns out to be damaged is taken back.
func (t *teller) regular(f *wire.File) error {
	content, err := t.fsys.Open(f.Ino)
	if err != nil {
		return err
	}
	if f.Size < 0 || f.Size != content.Size() {
		return t.damaged(disk.ErrCorrupt, fmt.Sprintf("inode %d", f.Ino), "it has %d bytes, and its content %d", f.Size, content.Size())
	}
	what, may, err := t.same.of(f, content)
	if err != nil {
		return err
	}
	if err := t.node(f); err != nil {
		return err
	}
	if first, ok := t.same.told[what]; ok && may {
		if err := t.send(wire.Same, wire.AppendNumber(nil, first)); err != nil {
			return err
		}
		return t.send(wire.End)
	}
	err = content.Extents(0, f.Size, func(e disk.Extent) error {
		if e.Kind != disk.ExtentData {
			return nil
		}
		if t.run.opts.Hollow {
			return t.room(e.Offset, e.Length)
		}
		return t.data(content, e.Offset, e.Length)
	})
	if d := (*disk.Error)(nil); errors.As(err, &d) {
		return errors.Join(t.send(wire.Abandon), err)
	}
	if err != nil {
		return err
	}
	if may && t.same.remember(what, f.Ino) {
		return t.send(wire.End, wire.AppendNumber(nil, f.Ino))
	}
	return t.send(wire.End)
}

func (t *teller) data(content io.ReaderAt, off, length int64) error {
	for length > 0 {
		p := t.piece[:min(int64(len(t.piece)), length)]
		if n, err := content.ReadAt(p, off); n < len(p) {
			if err == nil || errors.Is(err, io.EOF) {
				err = t.damaged(disk.ErrCorrupt, "content", "it ends at %d, before its size", off+int64(n))
			}
			return err
		}
		if err := t.send(wire.Data, wire.AppendNumber(nil, uint64(off)), p); err != nil {
			return err
		}
		off, length = off+int64(len(p)), length-int64(len(p))
	}
	return nil
}

// room tells of content that is left out.
func (t *teller) room(off, length int64) error {
	for length > 0 {
		n := min(length, maxRoom)
		t.run.wait.allow(n)
		if err := t.send(wire.Room, wire.AppendRange(nil, wire.Range{Offset: off, Length: n})); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

func (t *teller) damaged(why error, structure, format string, args ...any) error {
	return &disk.Error{Layer: t.fsys.Info().Type, Structure: structure, Offset: -1, Err: why, Detail: fmt.Sprintf(format, args...)}
}
