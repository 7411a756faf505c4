package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/atomicfile"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/nbd"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/repository"
)

// PartEnding is behind the name of a disk image that is not whole yet. The next
// restore to the same path goes on with what is there.
const PartEnding = ".drydock-part"

// Image returns a disk that the snapshot has whole, as the guest sees it. A
// snapshot that has none of that name is [disk.ErrNotExist].
func (t *Tree) Image(name string) (disk.Sparse, error) {
	inode, err := disk.Lookup(t, []byte(wholedisk.ImagePath(name)))
	if err != nil {
		return nil, err
	}
	return t.Open(inode.Ino)
}

// ImageOptions are the choices of [WriteImage].
type ImageOptions struct {
	// Overwrite replaces what is at the path.
	Overwrite bool
	// Progress is called now and then, if it is not nil; from one goroutine at a
	// time.
	Progress func(ImageReport)
}

// ImageReport is what restoring a disk did, in bytes.
type ImageReport struct {
	Size    int64 `json:"size"`
	Written int64 `json:"written"`
	Holes   int64 `json:"holes"`   // zeros that take no space
	Resumed int64 `json:"resumed"` // there already, from a restore that was cut off
}

// WriteImage writes a disk that the snapshot has whole to a raw image at path:
// zeros become holes, and path is there only when all of it is durable. What a run
// that was cut off has left is read again, and kept as far as it is right.
func (t *Tree) WriteImage(ctx context.Context, name, path string, opts ImageOptions) (ImageReport, error) {
	d, err := t.Image(name)
	if err != nil {
		return ImageReport{}, err
	}
	c, ok := d.(*content)
	if !ok {
		return ImageReport{}, fmt.Errorf("disk %s: %w", name, disk.ErrUnsupported)
	}
	if _, err := os.Lstat(path); err == nil && !opts.Overwrite {
		return ImageReport{}, fmt.Errorf("%s: %w (--overwrite replaces it)", path, fs.ErrExist)
	}
	w := &imageWriter{content: c, opts: opts, report: ImageReport{Size: c.Size()}}
	if err := w.run(ctx, path); err != nil {
		return w.report, fmt.Errorf("restore disk %s to %s: %w", name, path, err)
	}
	return w.report, nil
}

// imageWriter writes one disk.
type imageWriter struct {
	*content
	opts   ImageOptions
	file   *os.File
	resume bool // the file has content already

	mu     sync.Mutex // guards report
	report ImageReport
}

func (w *imageWriter) run(ctx context.Context, path string) error {
	part := path + PartEnding
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := imagelock.Acquire(f, imagelock.Exclusive); err != nil {
		return err // another restore
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file: remove it", part)
	}
	w.file, w.resume = f, info.Size() > 0
	if err := f.Truncate(w.Size()); err != nil {
		return err
	}
	if err := w.pieces(ctx); err != nil {
		return err
	}
	return finish(part, path, w.opts.Overwrite)
}

// pieces writes all pieces, on all cores.
func (w *imageWriter) pieces(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			var own, there []byte
			for i := range next {
				start := int64(0)
				if i > 0 {
					start = w.ends[i-1]
				}
				var err error
				if own, there, err = w.piece(ctx, i, start, own, there); err != nil {
					return fmt.Errorf("at %d: %w", start, err)
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(next)
		for i := range w.ids {
			select {
			case next <- i:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	return g.Wait()
}

// piece writes the piece that starts there. It returns the buffers that it was
// given, or larger ones.
func (w *imageWriter) piece(ctx context.Context, i int, start int64, own, there []byte) (_, _ []byte, err error) {
	n := w.ends[i] - start
	if !w.resume && w.zero(i) {
		w.count(ImageReport{Holes: n})
		return own, there, nil
	}
	if w.resume {
		if int64(cap(there)) < n {
			there = make([]byte, n)
		}
		if _, err := w.file.ReadAt(there[:n], start); err != nil {
			return own, there, err
		}
		if repository.Hash(there[:n]) == w.ids[i] {
			w.count(ImageReport{Resumed: n})
			return own, there, nil
		}
	}
	if own, err = w.tree.repo.LoadBlob(ctx, repository.DataBlob, w.ids[i], own); err != nil {
		return own, there, w.tree.failed("the disk", err)
	}
	if int64(len(own)) != n {
		return own, there, fmt.Errorf("%w: a piece is not as long as the index says", disk.ErrCorrupt)
	}
	if w.resume {
		_, err = w.file.WriteAt(own, start)
		w.count(ImageReport{Written: n})
		return own, there, err
	}
	written, err := writeSparse(w.file, own, start)
	w.count(ImageReport{Written: written, Holes: n - written})
	return own, there, err
}

// count adds to the report.
func (w *imageWriter) count(more ImageReport) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.report.Written += more.Written
	w.report.Holes += more.Holes
	w.report.Resumed += more.Resumed
	if w.opts.Progress != nil {
		w.opts.Progress(w.report)
	}
}

// Replace puts the image at restored in the place of the disk at path, with the
// owner and the permissions of the old one, which is kept under another name. The
// caller keeps others from opening the disk. At each moment a whole disk is at path.
func Replace(path, restored, kept string) error {
	var old unix.Stat_t
	if err := unix.Stat(path, &old); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if err := os.Chown(restored, int(old.Uid), int(old.Gid)); err != nil {
		return err
	}
	if err := os.Chmod(restored, fs.FileMode(old.Mode).Perm()); err != nil {
		return err
	}
	if err := os.Link(path, kept); err != nil {
		return err
	}
	if err := os.Rename(restored, path); err != nil {
		return errors.Join(err, os.Remove(kept))
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// WriteQCOW2 writes a disk to a qcow2 image at path, which qemu-img makes of what
// it reads over NBD. Zeros take no space. path is there only when all of it is
// durable; what a run that was killed has left, at path or as a folder for its socket, is
// removed.
func WriteQCOW2(ctx context.Context, d disk.Sparse, path string, tool *qemuimg.Tool, opts ImageOptions) (err error) {
	if _, err := os.Lstat(path); err == nil && !opts.Overwrite {
		return fmt.Errorf("%s: %w (--overwrite replaces it)", path, fs.ErrExist)
	}
	dir, done, err := scratch()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	socket := filepath.Join(dir, "socket")
	l, err := nbd.Listen(socket)
	if err != nil {
		return err
	}
	var failed error // of the disk: qemu-img knows of an I/O error alone
	var first sync.Once
	server := nbd.Start(l, nbd.Options{
		Exports: []nbd.Export{{Name: "disk", Disk: d}},
		Report:  func(err error) { first.Do(func() { failed = err }) },
	}, func(error) {})
	part := path + PartEnding
	if err = empty(part); err == nil {
		err = tool.ConvertNBD(ctx, socket, part)
	}
	if serveErr := server.Close(); err == nil {
		err = serveErr
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", path, errors.Join(err, failed, remove(part)))
	}
	return finish(part, path, opts.Overwrite)
}

// empty makes an empty file in the place of what a run that was killed has left: qemu-img
// would make one that everybody can read, and keeps the permissions of one that is there.
func empty(path string) error {
	if err := remove(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// finish gives a whole image its name.
func finish(part, path string, overwrite bool) error {
	f, err := os.Open(part)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	rename := atomicfile.RenameNew
	if overwrite {
		rename = os.Rename
	}
	if err := rename(part, path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// remove removes a file that may be gone.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
