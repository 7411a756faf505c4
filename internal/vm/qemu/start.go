//go:build linux

package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/flock"
	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

const (
	// startTimeout is how long QEMU may take until its guest executes. To
	// touch the memory of a large guest (prealloc) takes minutes; a QEMU that
	// ends is noticed at once.
	startTimeout = 5 * time.Minute
	// retryPause is how long to wait before looking again.
	retryPause = 20 * time.Millisecond
	// maxLog is how long a log may be before it is put aside, in bytes.
	maxLog = 16 << 20
)

// Start starts QEMU and returns when its guest executes. A machine that is
// paused is not resumed: [vm.ErrPaused]. When QEMU gives up, the error says what
// it printed. One that has not answered when ctx ends, or after five minutes, is
// left as it is: its guest may execute already, and only [Machine.Kill] takes a
// machine's power away.
func (m *Machine) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := m.prepare(); err != nil {
		return m.fail("start", err, "")
	}
	// This is the only process that starts the machine.
	lock, err := flock.Wait(ctx, m.path(startLock), "start "+m.o.Name)
	if err != nil {
		return m.fail("start", err, "")
	}
	defer lock.Release()
	p, err := m.find()
	if err != nil {
		return m.fail("start", err, "")
	}
	if p != nil {
		defer p.close()
		if err := m.awaitRunning(ctx, p); err != nil {
			return m.fail("start", err, "see "+m.logPath())
		}
		return nil
	}
	return m.launch(ctx)
}

// launch runs the command until the guest executes.
func (m *Machine) launch(ctx context.Context) error {
	if err := errors.Join(m.setAside(), m.prepareConsole()); err != nil {
		return m.fail("start", err, "")
	}
	c, err := m.spawn()
	if err != nil {
		return err
	}
	p, err := m.awaitLock(ctx, c)
	if err != nil {
		// Without the pidfile's lock it has opened no disk, and would not be
		// found again.
		c.kill()
	} else {
		defer p.close()
		err = m.awaitRunning(ctx, p)
	}
	if errors.Is(err, errExited) {
		return m.explain(err, c.mark)
	}
	return err
}

// child is a QEMU that this process has started.
type child struct {
	process *os.Process
	mark    int64         // where in the log its words begin
	done    chan struct{} // closed when it has ended
	how     error         // how it ended; read after done is closed
}

func (c *child) kill() {
	c.process.Kill() // fails only when it has ended
	<-c.done
}

// spawn starts the command.
func (m *Machine) spawn() (*child, error) {
	log, err := os.OpenFile(m.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, m.fail("start", err, "")
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil {
		return nil, m.fail("start", err, "")
	}
	cmd := exec.Command(m.o.Command[0], append(m.o.Command[1:len(m.o.Command):len(m.o.Command)], m.args...)...)
	cmd.Dir = m.o.RuntimeDir
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// What Go opens is closed on exec. What drydock was born with may not be:
	// a lock or a pipe of whoever started it would live as long as the guest.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, m.fail("start", fmt.Errorf("mark inherited files: %w", err), "Linux 5.11 is needed")
	}
	if err := cmd.Start(); err != nil {
		hint := ""
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
			hint = "install QEMU, or give its full path in command"
		}
		return nil, m.fail("start", err, hint)
	}
	c := &child{process: cmd.Process, mark: info.Size(), done: make(chan struct{})}
	go func() { // also so that no zombie stays
		c.how = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

// environment is what QEMU gets of drydock's own. Credentials, and the sockets
// of systemd that are meant for drydock, are none of its business.
func environment() []string {
	env := []string{"LC_ALL=C"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

var (
	// errExited says that a QEMU ended that should not have.
	errExited = errors.New("QEMU ended at once")
	// errLingers is of a QEMU with -action shutdown=pause.
	errLingers = errors.New("the guest has powered off, but its QEMU stays")
)

// awaitLock waits until a QEMU holds the pidfile. It need not be the one that
// was just started: a drydock that was killed may have left one that had not
// got as far, and whichever comes second gives up.
func (m *Machine) awaitLock(ctx context.Context, c *child) (*process, error) {
	for {
		ended := false
		select {
		case <-c.done:
			ended = true
		case <-ctx.Done():
			return nil, m.fail("start", fmt.Errorf("QEMU does not come up: %w", ctx.Err()), "see "+m.logPath())
		case <-time.After(retryPause):
		}
		p, err := m.find()
		if err != nil {
			return nil, m.fail("start", err, "")
		}
		if p != nil {
			return p, nil
		}
		if ended && c.how != nil {
			return nil, fmt.Errorf("%w: %w", errExited, c.how)
		}
		if ended {
			return nil, errExited
		}
	}
}

// awaitRunning waits until QEMU says that its guest executes.
func (m *Machine) awaitRunning(ctx context.Context, p *process) error {
	for {
		state, err := qmp.State(ctx, m.path(qmpSocket))
		switch {
		case err == nil && state == vm.Running:
			return nil
		case err == nil && state == vm.Paused:
			return m.fail("start", vm.ErrPaused, "resume it, or power it off")
		case err == nil && state == vm.Stopping:
			return m.fail("start", errLingers, "power it off")
		case p.gone():
			return errExited
		case ctx.Err() != nil:
			return m.fail("start", fmt.Errorf("QEMU does not answer: %w", ctx.Err()), "see "+m.logPath())
		}
		time.Sleep(retryPause)
	}
}

// prepare makes the folders.
func (m *Machine) prepare() error {
	if err := os.MkdirAll(m.o.LogDir, 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(m.o.RuntimeDir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(m.o.RuntimeDir)
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || !ok || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not a folder of this user's (remove it)", m.o.RuntimeDir)
	}
	return os.Chmod(m.o.RuntimeDir, 0o700)
}

// prepareConsole makes the console's file. QEMU would make it readable for all.
func (m *Machine) prepareConsole() error {
	if m.o.Console == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(m.o.Console), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(m.o.Console, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// setAside renames logs that have become long. Of each one older one is kept.
// Nobody may be writing to them.
func (m *Machine) setAside() error {
	for _, log := range []string{m.logPath(), m.o.Console} {
		if info, err := os.Lstat(log); err != nil || info.Size() <= maxLog {
			continue
		}
		if err := os.Rename(log, log+".1"); err != nil {
			return err
		}
	}
	return nil
}
