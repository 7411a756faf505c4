package tarball

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/drydock-vm/drydock/disk"
)

// Options are the choices of one archive.
type Options struct {
	// Strict makes what cannot be read an error that ends the archive.
	Strict bool
	// Progress, unless it is nil, is called often, from the goroutine of Write.
	Progress func(Report)
}

const (
	// maxDepth is how deep folders may lie in each other: a path of 4096 bytes,
	// the longest that Linux takes in one go, has 2048 at most.
	maxDepth = 2048
	// maxVisited is how many folders are archived. It costs some 200 MB to
	// remember them.
	maxVisited = 1 << 22
	// maxHeld is how many entries, of all the folders on the way to where the
	// archive is, are held. It costs some 300 MB to get there.
	maxHeld = 4 * disk.MaxDirEntries
	// maxPendingLinks is how many files are remembered until their last name was
	// seen. Further ones are archived once for each name.
	maxPendingLinks = 1 << 20
	// pieceSize is how much is read at a time, in bytes, and how large a file
	// may be to be read before its header is written.
	pieceSize = 1 << 20
)

// archiver writes one archive.
type archiver struct {
	ctx   context.Context
	fsys  disk.Filesystem
	opts  Options
	out   *bufio.Writer
	tar   *tar.Writer // to out
	piece []byte

	visited map[uint64]bool // folders, by inode number
	links   map[uint64]*firstName
	held    int
	report  Report
}

// firstName is the name at which a file with several was archived.
type firstName struct {
	name string // in the archive
	left uint32 // how many names may still come
}

// Write writes the file or folder at path to w, and what is below it. Names in the
// archive are paths of the source without the slash in front: of /var/lib, which is
// "var/lib/", the folder "var/" above it is not in the archive, and neither is the
// root directory itself. A path that does not exist is [disk.ErrNotExist].
//
// An error means that the archive is not complete. What could not be read is in the
// report, and no error. A write to w that blocks is not interrupted by ctx.
func Write(ctx context.Context, w io.Writer, fsys disk.Filesystem, path []byte, opts Options) (Report, error) {
	out := bufio.NewWriterSize(w, pieceSize)
	a := &archiver{
		ctx: ctx, fsys: fsys, opts: opts, out: out, tar: tar.NewWriter(out), piece: make([]byte, pieceSize),
		visited: map[uint64]bool{}, links: map[uint64]*firstName{},
	}
	if err := a.run(path); err != nil {
		return a.report, fmt.Errorf("tar: %w", err)
	}
	return a.report, nil
}

func (a *archiver) run(path []byte) error {
	inode, err := disk.Lookup(a.fsys, path)
	if err != nil {
		return err
	}
	var name []byte
	depth := 0
	for n := range bytes.SplitSeq(path, []byte("/")) {
		if len(n) > 0 {
			name = append(append(name, '/'), n...)
			depth++
		}
	}
	if len(name) == 0 {
		if err := a.visit(inode.Ino, depth); err != nil {
			return err
		}
		err = a.children("", inode.Ino, depth)
	} else {
		err = a.fail(name, a.inode(string(name[1:]), inode, depth))
	}
	if err != nil {
		return err
	}
	if err := a.tar.Close(); err != nil {
		return err
	}
	return a.out.Flush()
}

// children archives what is in folder ino, whose name in the archive is dir, with a
// slash at its end unless it is the root.
func (a *archiver) children(dir string, ino uint64, depth int) error {
	path := func(name []byte) []byte { return append([]byte("/"+dir), name...) }
	entries, err := disk.List(a.fsys, ino)
	if err := a.fail(path(nil), err); err != nil {
		return err
	}
	a.held += len(entries)
	defer func() { a.held -= len(entries) }()
	if a.held > maxHeld {
		return a.fail(path(nil), a.refused(disk.ErrLimit, "directory", "it and those above it have more than %d entries", maxHeld))
	}
	for _, e := range entries {
		if err := a.ctx.Err(); err != nil {
			return context.Cause(a.ctx)
		}
		if err := a.fail(path(e.Name), a.entry(dir, e, depth+1)); err != nil {
			return err
		}
		a.progress()
	}
	return nil
}

func (a *archiver) progress() {
	if a.opts.Progress != nil {
		a.opts.Progress(a.report)
	}
}

func (a *archiver) entry(dir string, e disk.DirEntry, depth int) error {
	name := string(e.Name)
	if name == "" || name == "." || name == ".." || bytes.ContainsAny(e.Name, "/\x00") {
		return a.damaged("directory", "the name %.300q is not one that a folder can hold", name)
	}
	inode, err := a.fsys.Inode(e.Ino)
	if err != nil {
		return err
	}
	return a.inode(dir+name, inode, depth)
}

// inode archives a file of any type, and what is in it if it is a folder.
func (a *archiver) inode(name string, inode disk.Inode, depth int) error {
	kind, err := a.kind(inode)
	if err != nil {
		return err
	}
	switch kind {
	case tar.TypeDir:
		if err := a.visit(inode.Ino, depth); err != nil {
			return err
		}
		name += "/"
	case socket:
		a.report.Sockets++
		return nil
	default:
		if done, err := a.link(name, inode); done || err != nil {
			return err
		}
	}
	h, err := a.header(name, kind, inode)
	if err != nil {
		return err
	}
	if kind == tar.TypeReg {
		err = a.file(h, inode)
	} else {
		err = a.writeHeader(h)
	}
	if err != nil {
		return err
	}
	a.count(name, kind, inode)
	if kind == tar.TypeDir {
		return a.children(name, inode.Ino, depth)
	}
	return nil
}

// count counts what is in the archive, and remembers it if it has other names.
func (a *archiver) count(name string, kind byte, inode disk.Inode) {
	switch kind {
	case tar.TypeReg:
		a.report.Files++
		a.report.Bytes = disk.AddSizes(a.report.Bytes, inode.Size)
	case tar.TypeDir:
		a.report.Dirs++
		return
	case tar.TypeSymlink:
		a.report.Symlinks++
	default:
		a.report.Specials++
	}
	if inode.Links > 1 && len(a.links) < maxPendingLinks {
		a.links[inode.Ino] = &firstName{name, inode.Links - 1}
	}
}

// link archives a further name of what is in the archive already.
func (a *archiver) link(name string, inode disk.Inode) (done bool, err error) {
	first := a.links[inode.Ino]
	if first == nil {
		return false, nil
	}
	h, err := a.header(name, tar.TypeLink, inode)
	if err != nil {
		return false, err
	}
	h.Linkname = first.name
	if err := a.writeHeader(h); err != nil {
		return false, err
	}
	if first.left--; first.left == 0 {
		delete(a.links, inode.Ino)
	}
	a.report.Links++
	return true, nil
}

// visit refuses what would never end: a folder that is in itself, or in so many
// others that all paths to it cannot be walked.
func (a *archiver) visit(ino uint64, depth int) error {
	switch {
	case a.visited[ino]:
		return a.damaged("directory", "it is in two places, and archived at the first")
	case depth > maxDepth:
		return a.refused(disk.ErrLimit, "directory", "it lies more than %d folders deep", maxDepth)
	case len(a.visited) == maxVisited:
		return a.refused(disk.ErrLimit, "directory", "there are more than %d folders", maxVisited)
	}
	a.visited[ino] = true
	return nil
}

func goTime(t disk.Time) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }
