package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/drydock-vm/drydock/internal/fusefs"
	"github.com/drydock-vm/drydock/internal/tarball"
)

// folder runs the program in a folder of mounted disks. They lie beside one
// another, and not where the guest mounts them: a mount point in a guest's tree is
// the guest's, and could be a symlink to a folder of the host.
func (r *run) folder(ctx context.Context, disks []Disk) (err error) {
	dir, err := os.MkdirTemp(r.scratch, "drydock-sink-")
	if err != nil {
		return fmt.Errorf("make a folder for program %s: %w", r.program.Name, err)
	}
	var reported faults
	var mounted []*fusefs.Mounted
	defer func() {
		for _, m := range mounted {
			// Busy if a descendant of the program lives on: then it keeps what it
			// has open, and sees nothing new.
			if m.Unmount() != nil {
				err = errors.Join(err, m.Detach())
			}
		}
		err = errors.Join(err, removeFolders(dir, disks))
	}()
	for _, d := range disks {
		at := filepath.Join(dir, d.Name)
		if err := os.Mkdir(at, 0o700); err != nil {
			return fmt.Errorf("make a folder for disk %s: %w", d.Name, err)
		}
		m, err := fusefs.Mount(at, d.FS, fusefs.Options{FSName: "drydock:" + r.vm.Name + "/" + d.Name, NoExec: true, Report: reported.add(d.Name)})
		if err != nil {
			return err
		}
		mounted = append(mounted, m)
	}
	err = r.execute(ctx, dir, "", nil)
	r.report.Warnings = append(r.report.Warnings, reported.lines()...)
	return err
}

// removeFolders removes what folder made. It removes no file: a disk that could not
// be unmounted stays as it is.
func removeFolders(dir string, disks []Disk) error {
	var errs []error
	for _, d := range disks {
		if err := os.Remove(filepath.Join(dir, d.Name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, os.Remove(dir))...)
}

// maxFaults bounds the warnings of one run.
const maxFaults = 100

// faults collects what could not be read.
type faults struct {
	mu    sync.Mutex // guards what follows
	list  []string
	total int
}

func (f *faults) add(disk string) func(uint64, error) {
	return func(ino uint64, err error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.total++; len(f.list) < maxFaults {
			f.list = append(f.list, fmt.Sprintf("disk %s, inode %d: %v", disk, ino, err))
		}
	}
}

func (f *faults) lines() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if more := f.total - len(f.list); more > 0 {
		return append(f.list, fmt.Sprintf("and %d files more", more))
	}
	return f.list
}

// tar feeds the program a tar of a disk's files.
func (r *run) tar(ctx context.Context, d Disk) error {
	return r.execute(ctx, "/", d.Name, func(ctx context.Context, w io.Writer) error {
		rep, err := tarball.Write(ctx, w, d.FS, []byte("/"), tarball.Options{})
		for _, line := range rep.Warnings {
			r.report.Warnings = append(r.report.Warnings, "disk "+d.Name+": "+line)
		}
		if more := rep.WarningsTotal - int64(len(rep.Warnings)); more > 0 {
			r.report.Warnings = append(r.report.Warnings, fmt.Sprintf("disk %s: and %d more", d.Name, more))
		}
		return err
	})
}

// rawPiece is how much of a disk is read at once.
const rawPiece = 1 << 20

// raw feeds the program all bytes of a disk.
func (r *run) raw(ctx context.Context, d Disk) error {
	return r.execute(ctx, "/", d.Name, func(ctx context.Context, w io.Writer) error {
		buf := make([]byte, rawPiece)
		for off := int64(0); off < d.Content.Size(); {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			p := buf[:min(int64(len(buf)), d.Content.Size()-off)]
			if n, err := d.Content.ReadAt(p, off); n < len(p) {
				return fmt.Errorf("read the disk at %d: %w", off, err)
			}
			if _, err := w.Write(p); err != nil {
				return err
			}
			off += int64(len(p))
		}
		return nil
	})
}
