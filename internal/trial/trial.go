package trial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/flock"
	"github.com/drydock-vm/drydock/internal/health"
	"github.com/drydock-vm/drydock/internal/nbd"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/qemu"
)

// Options say what machine is tried. All but Files, and Base and Size of a Disk, are
// required.
type Options struct {
	Name   string // of the VM
	Folder string // for this trial alone; what is in it is removed
	// Scratch is another one, for what the guest writes, and copies of files: on a disk, and
	// not in memory.
	Scratch string
	Logs    string // folder of the logs of trials, which stay

	Command []string // of the VM: QEMU and its arguments
	Disks   []Disk
	Asked   []string // the addresses, HOST:PORT, that probes ask
	// Files are the files of the host that the backup has, by path. They are used in
	// the place of those that the host has now.
	Files map[string]func() (io.Reader, error)
	// Probes makes the probes of the machine that is tried. forward says which
	// address answers in the place of one of Asked.
	Probes func(m vm.Machine, mark int64, forward map[string]string) ([]health.Probe, error)

	Timeout  time.Duration // until all probes pass, counted from the start
	Interval time.Duration // between two tries of the probes
	Tool     *qemuimg.Tool
}

// Disk is a disk of the machine. It has one of Content, Base and Size.
type Disk struct {
	Name    string
	Path    string      // of the VM's own image, as the command has it
	Content disk.Sparse // what is on it
	Base    string      // the raw image that has what is on it, which stays as it is
	Size    int64       // of an empty disk, in bytes
}

// Result is how a trial went.
type Result struct {
	// Healthy is the time from the start of QEMU until all probes passed.
	Healthy time.Duration `json:"healthy"`
	// Read is what QEMU read of the contents, in bytes.
	Read int64 `json:"read"`
}

// Errors of a trial.
var (
	// ErrBusy says that a trial of the same machine is under way.
	ErrBusy = errors.New("a trial of this machine is under way")
	// ErrEnded says that the machine ended before it was healthy.
	ErrEnded = errors.New("the machine ended before it was healthy: its guest panicked, powered off or started anew")
	// ErrStart says that the machine was not started, for a reason that is not the
	// content's.
	ErrStart = errors.New("the machine cannot be started")
	// ErrRoom says that there is too little room for what a guest writes.
	ErrRoom = errors.New("the disk is nearly full")
	// ErrRead is of content that could not be read.
	ErrRead = errors.New("the backup could not be read")
)

// Run starts the machine, waits until it is healthy, and ends it. A result that
// comes with an error has what was measured until then.
func Run(ctx context.Context, o Options) (Result, error) {
	lock, err := take(o.Folder, o.Scratch)
	if err != nil {
		return Result{}, err
	}
	defer lock.Release()
	t := &trial{Options: o}
	if err := t.prepare(ctx); err != nil {
		if !errors.Is(err, ErrCommand) {
			err = fmt.Errorf("%w: %w", ErrStart, err)
		}
		return Result{}, errors.Join(err, remove(o.Folder, o.Scratch))
	}
	result, err := t.run(ctx)
	kerr := t.machine.Kill(context.WithoutCancel(ctx))
	t.stop()
	if kerr == nil { // or else the next trial, or a sweep, ends it, and finds it in the folder
		kerr = remove(o.Folder, o.Scratch)
	}
	return result, errors.Join(err, kerr)
}

func remove(folder, scratch string) error {
	return errors.Join(os.RemoveAll(folder), os.RemoveAll(scratch))
}

// trial is one trial under way.
type trial struct {
	Options
	machine *qemu.Machine
	forward map[string]string
	stop    func() // the NBD server
	read    atomic.Int64

	mu     sync.Mutex // guards failed
	failed error      // the first error of a content
}

// socket is the NBD server's, in the folder, which is the working folder of QEMU.
const socket = "disks.sock"

// prepare rewrites the command, makes the overlays, and serves the contents.
func (t *trial) prepare(ctx context.Context) error {
	images := map[string]string{}
	for _, d := range t.Disks {
		images[d.Path] = t.overlay(d)
	}
	r, err := Rewrite(Rewriting{Command: t.Command, Disks: images, Asked: t.Asked, Port: freePort, Folder: t.Scratch,
		Has: func(path string) bool { return t.Files[path] != nil }})
	if err != nil {
		return err
	}
	t.forward = r.Forward
	for _, folder := range []string{t.Folder, t.Scratch} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
	}
	if err := t.room(); err != nil {
		return err
	}
	for from, to := range r.Copies {
		if err := t.copyFile(from, to); err != nil {
			return err
		}
	}
	for _, d := range t.Disks {
		if err := t.create(ctx, d); err != nil {
			return err
		}
	}
	t.machine, err = qemu.New(qemu.Options{Name: t.Name, Command: r.Command, RuntimeDir: t.Folder, LogDir: t.Logs})
	if err != nil {
		return err
	}
	return t.serve()
}

func (t *trial) overlay(d Disk) string { return filepath.Join(t.Scratch, d.Name+".qcow2") }

// reserve is what a guest leaves of the disk that it writes to, in bytes.
const reserve = 1 << 30

// room checks that there is room for what the guest writes. It may write as much as its
// disks have, and on and on.
func (t *trial) room() error {
	var st unix.Statfs_t
	if err := unix.Statfs(t.Scratch, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: t.Scratch, Err: err}
	}
	if free := st.Bavail * uint64(st.Frsize); free < reserve {
		return fmt.Errorf("%w: of that of %s %d bytes are free, less than %d", ErrRoom, t.Scratch, free, reserve)
	}
	return nil
}

// create makes the overlay of one disk.
func (t *trial) create(ctx context.Context, d Disk) error {
	backing, size := d.Base, d.Size
	switch {
	case d.Content != nil:
		backing, size = qemuimg.NBDURL(socket, d.Name), d.Content.Size()
	case d.Base != "":
		info, err := os.Stat(d.Base)
		if err != nil {
			return err
		}
		size = info.Size()
	}
	return t.Tool.CreateOverlay(ctx, t.overlay(d), backing, size)
}

// serve serves the contents until t.stop.
func (t *trial) serve() error {
	var exports []nbd.Export
	for _, d := range t.Disks {
		if d.Content != nil {
			exports = append(exports, nbd.Export{Name: d.Name, Disk: &watched{d.Content, t, d.Name}})
		}
	}
	t.stop = func() {}
	if len(exports) == 0 {
		return nil
	}
	l, err := nbd.Listen(filepath.Join(t.Folder, socket))
	if err != nil {
		return err
	}
	// The server outlives the context: QEMU is ended first.
	server := nbd.Start(l, nbd.Options{Exports: exports}, t.fail)
	t.stop = func() { _ = server.Close() } // fail was told
	return nil
}

// run starts the machine and waits until it is healthy.
func (t *trial) run(ctx context.Context) (Result, error) {
	mark, err := health.ConsoleMark(t.machine.ConsolePath())
	if err != nil {
		return Result{}, err
	}
	probes, err := t.Probes(t.machine, mark, t.forward)
	if err != nil {
		return Result{}, err
	}
	start := time.Now()
	if err = t.machine.Start(ctx); err != nil {
		err = fmt.Errorf("%w: %w", ErrStart, err)
	} else {
		err = t.healthy(ctx, probes)
	}
	result := Result{Healthy: time.Since(start), Read: t.read.Load()}
	t.mu.Lock()
	failed := t.failed
	t.mu.Unlock()
	if failed != nil { // also of a machine that is healthy all the same
		err = readError(failed, err)
	}
	if err != nil {
		err = t.lastWords(err, mark)
	}
	return result, err
}

// pause is how often it is looked whether a machine still runs, and has room.
const pause = 200 * time.Millisecond

// healthy asks the probes until all pass, or the machine has ended.
func (t *trial) healthy(ctx context.Context, probes []health.Probe) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			if err := t.room(); err != nil {
				cancel(err)
			}
			if state, err := t.machine.State(ctx); err == nil && !state.UsesDisks() {
				cancel(ErrEnded)
			}
		}
	}()
	_, err := health.Check(ctx, probes, health.Options{Timeout: t.Timeout, Interval: t.Interval})
	if cause := context.Cause(ctx); errors.Is(cause, ErrEnded) || errors.Is(cause, ErrRoom) {
		return cause
	}
	return err
}

func (t *trial) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed == nil {
		t.failed = err
	}
}

// watched counts what is read of a content, and remembers what could not be.
type watched struct {
	disk.Sparse
	t    *trial
	name string
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.Sparse.ReadAt(p, off)
	w.t.read.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		w.t.fail(fmt.Errorf("disk %s at %d: %w", w.name, off, err))
	}
	return n, err
}

// take takes the folders of a trial, in which nothing is left of one before.
func take(folder, scratch string) (*flock.Lock, error) {
	if err := os.MkdirAll(filepath.Dir(folder), 0o700); err != nil {
		return nil, err
	}
	lock, err := flock.Take(folder+".lock", "trial of "+filepath.Base(folder))
	if held, ok := errors.AsType[*flock.HeldError](err); ok {
		return nil, fmt.Errorf("%w, by %s", ErrBusy, held.Holder)
	}
	if err != nil {
		return nil, err
	}
	if err = end(folder); err == nil {
		err = remove(folder, scratch)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take %s: %w", folder, err), lock.Release())
	}
	return lock, nil
}

// end ends the machine that a process has left that was killed.
func end(folder string) error {
	if _, err := os.Lstat(folder); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	left, err := qemu.New(qemu.Options{Name: "left", Command: []string{"none"}, RuntimeDir: folder, LogDir: folder})
	if err != nil {
		return err
	}
	return left.Kill(context.Background())
}

// Sweep ends the machines of trials that processes have left which were killed, and
// removes what is left of them in the folders of all trials' Folders and Scratches.
// Trials that are under way are not touched.
func Sweep(folders, scratches string) error {
	var errs []error
	names := map[string]bool{}
	for _, folder := range []string{folders, scratches} {
		list, err := os.ReadDir(folder)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range list {
			names[e.Name()] = names[e.Name()] || e.IsDir()
		}
	}
	for name, isDir := range names {
		if !isDir {
			continue
		}
		lock, err := take(filepath.Join(folders, name), filepath.Join(scratches, name))
		if err == nil {
			err = lock.Release()
		}
		if err != nil && !errors.Is(err, ErrBusy) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
