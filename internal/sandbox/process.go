package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/sandbox/confine"
)

const (
	// maxStderr is how much of a worker's standard error is kept: its
	// beginning, where Go prints why it crashed.
	maxStderr = 4 << 10
	// pipeGrace is how long to wait for the end of standard error once the
	// worker is dead. Nobody else can hold the pipe, so this never passes.
	pipeGrace = 5 * time.Second
)

// given is what a worker is given to read: files, and whether there is content that
// it must ask for.
type given struct {
	files  []*os.File
	served bool
}

// process is a worker as the operating system sees it.
type process struct {
	disk string
	cmd  *exec.Cmd
	// isolation is why the worker has no namespaces of its own; nil if it has.
	isolation error
	exited    chan struct{} // closed when it has been reaped

	mu     sync.Mutex // guards stderr
	stderr []byte
}

// startProcess starts a worker with the given images, and returns the parent's
// end of what connects the two.
func startProcess(name string, opts Options, images given) (*process, *link, error) {
	l, own, err := newLink()
	if err != nil {
		return nil, nil, fmt.Errorf("connect to a disk reader: %w", err)
	}
	files := append(slices.Clone(own), images.files...)
	if images.served {
		var content *os.File
		if content, err = l.serve(); err == nil {
			own, files = append(own, content), append(files, content)
		}
	}
	p := &process{disk: name, exited: make(chan struct{})}
	if err == nil {
		err = p.start(opts, files)
	}
	for _, f := range own {
		f.Close()
	}
	if err != nil {
		return nil, nil, errors.Join(err, l.close())
	}
	go p.reap()
	return p, l, nil
}

// reap waits for the end of the process, which its ProcessState describes.
func (p *process) reap() {
	_ = p.cmd.Wait()
	close(p.exited)
}

// start tries to start the worker in namespaces, in each way that may work, and
// without them if none does; the caller decides whether that is acceptable.
func (p *process) start(opts Options, files []*os.File) error {
	for _, attr := range confine.CloneAttempts() {
		p.isolation = p.spawn(opts, files, attr)
		if p.isolation == nil {
			return nil
		}
	}
	return p.spawn(opts, files, confine.Unisolated())
}

// spawn starts the worker. The kernel kills it when the thread that started it
// ends, so that is a thread which no goroutine is locked to: the runtime keeps
// those.
func (p *process) spawn(opts Options, files []*os.File, attr *syscall.SysProcAttr) error {
	executable := opts.Executable
	if executable == "" {
		// Not the path, behind which an upgrade may have put another version.
		executable = "/proc/self/exe"
	}
	args := opts.Args
	if args == nil {
		args = []string{Verb}
	}
	p.cmd = &exec.Cmd{
		Path: executable, Args: append([]string{"drydock"}, args...),
		Env: []string{}, Dir: "/", ExtraFiles: files, SysProcAttr: attr,
		Stderr: p, WaitDelay: pipeGrace,
	}
	result := make(chan error)
	go func() { result <- p.cmd.Start() }()
	if err := <-result; err != nil {
		return fmt.Errorf("start a disk reader: %w", err)
	}
	return nil
}

// Write keeps the beginning of what the worker writes to standard error.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stderr = append(p.stderr, b[:min(len(b), maxStderr-len(p.stderr))]...)
	return len(b), nil
}

// stderrText returns what the worker wrote to standard error, line by line and
// safe to print.
func (p *process) stderrText() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(p.stderr)), "\n")
	for i, l := range lines {
		lines[i] = escape.Line(l)
	}
	return strings.Join(lines, "\n")
}

func (p *process) kill() { _ = p.cmd.Process.Kill() } // it may be dead already

// exitReason says how the process ended. It has been reaped.
func (p *process) exitReason() string {
	var state syscall.WaitStatus
	if p.cmd.ProcessState != nil {
		state, _ = p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	}
	switch {
	case state.Signaled():
		return fmt.Sprintf("killed by signal %d (%v)", int(state.Signal()), state.Signal())
	case state.ExitStatus() == 0:
		return "it left without being asked to"
	}
	return fmt.Sprintf("it failed with exit status %d", state.ExitStatus())
}

// errWritable says that a file would let the worker write to the disk.
var errWritable = errors.New("the image is open for writing; open it for reading only")

// checkReadOnly refuses a file that could be written to.
func checkReadOnly(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var flags int
	var callErr error
	if err := raw.Control(func(fd uintptr) { flags, callErr = unix.FcntlInt(fd, unix.F_GETFL, 0) }); err != nil {
		return err
	}
	if callErr != nil {
		return callErr
	}
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		return errWritable
	}
	return nil
}
