package writervm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/writervm/guest"
	"github.com/drydock-vm/drydock/internal/writervm/wire"
)

// Options are the choices of one machine.
type Options struct {
	Kernel Kernel
	// Accelerator is KVM or TCG. Without one KVM is tried, if this host has it, and TCG
	// taken if no guest comes up in it: there are hosts on which it hangs.
	Accelerator string
	// Executable is the program that is process 1, which calls [guest.Main]; by default
	// the one that runs.
	Executable string
	// Subvolumes are the numbers of the subvolumes in the source that a btrfs gets, as far as
	// btrfs gives them: [guest.MaxSkipped].
	Subvolumes []uint32
	// Silence is how long the machine may do nothing, 5 minutes if 0.
	Silence time.Duration
	// Hollow leaves content out: where there is some, zeros are written, which the image
	// keeps as holes. Btrfs has no checksums of them, and no content among its metadata.
	Hollow bool
	// Patience is how much longer than a slow one needs the machine may take in all,
	// whatever it says, 30 minutes if 0.
	Patience time.Duration

	// Damaged is called for what cannot be read of the source, and is not in the image,
	// unless it is nil.
	Damaged func(path []byte, ino uint64, err error)
	// Warn is called for what is not in the image as it is in the source, unless it is
	// nil. What the machine says is text that can be printed.
	Warn func(path []byte, text string)
}

const (
	// proof is how long KVM has to bring a guest up, and bringUp TCG, on a busy host.
	proof   = 10 * time.Second
	bringUp = 3 * time.Minute
	// powerOff is how long the machine may take to end when all is done.
	powerOff = time.Minute
)

var (
	// ErrSilent is of a machine that does nothing any more.
	ErrSilent = errors.New("the machine that writes the image is silent")
	// ErrSlow is of one that says that it does something, for longer than it can take.
	ErrSlow = errors.New("the machine that writes the image does not get on")
	// errNotUp is of one that did not come up.
	errNotUp = errors.New("the machine that writes the image does not come up")
)

// Write writes the files of fsys into the new filesystem on the raw image at path. The
// filesystem's type is as mount(8) calls it.
func Write(ctx context.Context, path, fstype string, fsys disk.Filesystem, opts Options) error {
	k, err := opts.Kernel.Find(fstype)
	if err != nil {
		return err
	}
	modules, err := k.check(fstype)
	if err != nil {
		return err
	}
	executable := opts.Executable
	if executable == "" {
		executable = "/proc/self/exe"
	}
	f, err := openFiles(path, executable, k, modules)
	if err != nil {
		return err
	}
	defer f.close()
	r := &run{ctx: ctx, opts: opts, fstype: fstype}
	if err := r.bringUp(fstype, f); err != nil {
		return err
	}
	err = r.write(fsys)
	return errors.Join(err, r.machine.stop())
}

// run is one machine from its start to its end.
type run struct {
	ctx     context.Context
	opts    Options
	fstype  string
	machine *machine
	from    *wire.Reader
	// warnings is how many the machine has told.
	warnings int

	alive    atomic.Uint64 // grows while there is progress
	wait     wait          // for the machine, and not for the source
	finished atomic.Bool   // the end of the tree was told
}

// work is what the guest is to do, as its arguments say it.
func (r *run) work(fstype string) []string {
	if r.opts.Hollow {
		return []string{fstype, guest.Hollow}
	}
	return []string{fstype}
}

// bringUp starts a machine that answers.
func (r *run) bringUp(fstype string, f *files) error {
	try := func(accelerator string, limit time.Duration) error {
		m, err := start(r.ctx, accelerator, r.work(fstype), f)
		if err == nil {
			r.machine, r.from = m, wire.NewReader(m.link, wire.MaxToHost)
			if err = r.awaitReady(limit); err != nil {
				if serr := m.stop(); serr != nil {
					return serr // it may still write
				}
			}
		}
		if err != nil && r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		return err
	}
	switch r.opts.Accelerator {
	case KVM:
		return try(KVM, bringUp)
	case "":
		if kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
			kvm.Close()
			if err := try(KVM, proof); !errors.Is(err, errNotUp) {
				return err
			}
		}
	}
	return try(TCG, bringUp)
}

// awaitReady waits until the guest has mounted the filesystem.
func (r *run) awaitReady(limit time.Duration) error {
	if err := r.machine.link.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	kind, payload, err := r.from.Next()
	switch {
	case err == nil && kind == wire.Ready:
		return r.machine.link.SetReadDeadline(time.Time{})
	case err == nil && kind == wire.Failed:
		return r.failed(payload)
	case err == nil:
		err = fmt.Errorf("%w: %q, and not that it is ready", wire.ErrBroken, kind)
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		<-r.machine.ended
		err = errors.New("it ended")
	}
	return r.machine.explain(fmt.Errorf("%w: %w", errNotUp, err))
}

// write tells the machine the tree, and listens to what it says. When it returns nothing
// reads fsys any more.
func (r *run) write(fsys disk.Filesystem) error {
	g, ctx := errgroup.WithContext(r.ctx)
	// Whatever goes wrong closes the link, which ends all that read and write it.
	defer context.AfterFunc(ctx, func() { r.machine.link.Close() })()
	done := make(chan struct{}) // closed when nothing is told or heard any more
	var both sync.WaitGroup
	both.Add(2)
	go func() { both.Wait(); close(done) }()
	g.Go(func() error { return r.watch(ctx, done) })
	g.Go(func() error {
		defer both.Done()
		if err := r.tell(ctx, fsys); !errors.Is(err, errLink) {
			return err
		}
		return nil // of a link that is broken the other side says why
	})
	g.Go(func() error {
		defer both.Done()
		err := r.listen()
		if err == nil && !r.finished.Load() {
			err = fmt.Errorf("%w: the machine is done before the end", wire.ErrBroken)
		}
		return err
	})
	err := g.Wait()
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	if err != nil {
		return err
	}
	return r.awaitEnd()
}

// listen reads what the guest says, until it is done.
func (r *run) listen() error {
	last := uint64(0)
	for {
		kind, payload, err := r.from.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			<-r.machine.ended
			return r.machine.explain(errors.New("the machine that writes the image ended"))
		}
		if err != nil {
			return fmt.Errorf("listen to the machine that writes the image: %w", err)
		}
		switch kind {
		case wire.Done:
			return nil
		case wire.Failed:
			return r.failed(payload)
		case wire.Warning:
			err = r.warning(payload)
		case wire.Progress:
			var n uint64
			if n, _, err = wire.Number(payload); n > last {
				last = n
				r.alive.Add(1)
			}
		default:
			err = fmt.Errorf("%w: %q from a machine", wire.ErrBroken, kind)
		}
		if err != nil {
			return err
		}
	}
}

// failed is the error that a guest tells.
func (r *run) failed(payload []byte) error {
	c, err := wire.DecodeComplaint(payload)
	if err != nil {
		return err
	}
	at := "the filesystem"
	if len(c.Path) > 0 {
		at = escape.Bytes(c.Path)
	}
	if c.Errno != 0 {
		// The number says what the text ends with.
		return &WriteError{At: at, Text: escape.Line(c.Text), Err: c.Errno}
	}
	return &WriteError{At: at, Text: escape.Line(c.Text)}
}

func (r *run) warning(payload []byte) error {
	if r.warnings++; r.warnings > wire.MaxWarnings {
		return fmt.Errorf("%w: more than %d warnings", wire.ErrBroken, wire.MaxWarnings)
	}
	c, err := wire.DecodeComplaint(payload)
	if err == nil && r.opts.Warn != nil {
		r.opts.Warn(c.Path, escape.Line(c.Text))
	}
	return err
}

// awaitEnd waits until QEMU has ended, and with it all use of the image.
func (r *run) awaitEnd() error {
	select {
	case <-r.machine.ended:
		if r.machine.status != nil {
			return r.machine.explain(fmt.Errorf("the machine that wrote the image: %w", r.machine.status))
		}
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	case <-time.After(powerOff):
		return nil // it has said that all is on the disk, and is stopped
	}
}

// WriteError is why a machine could not write on.
type WriteError struct {
	At   string // printable
	Text string // printable, what the guest says
	Err  error  // of the guest's kernel, or nil
}

func (e *WriteError) Error() string { return "write the image: " + e.At + ": " + e.Text }
func (e *WriteError) Unwrap() error { return e.Err }
