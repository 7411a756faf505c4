package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/printed"
)

const (
	// killGrace is how long a program may take to end after SIGTERM.
	killGrace = 10 * time.Second
	// maxOutput bounds what is kept of what a program prints, in bytes.
	maxOutput = 4 << 10
	// maxSecret bounds a secret: what a pipe holds without a reader.
	maxSecret = 64 << 10
)

// execute runs the program once. Its standard input is what feed writes; nil is
// none.
func (r *run) execute(ctx context.Context, dir, disk string, feed func(context.Context, io.Writer) error) error {
	args := r.args(disk)
	if len(args) == 0 {
		return &Error{Program: r.program.Name, Disk: disk, Err: errors.New("it has no command line")}
	}
	// Whoever writes the input must stop when the program has ended, and a
	// program whose input breaks off must not take that for the end.
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	output := &printed.Tail{Limit: maxOutput}
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Dir, c.Env = dir, r.env()
	c.Stdout, c.Stderr = output, output
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
	c.WaitDelay = killGrace
	secret, err := r.secret()
	if err != nil {
		return &Error{Program: r.program.Name, Disk: disk, Err: err}
	}
	if secret != nil {
		defer secret.Close()
		c.ExtraFiles = []*os.File{secret}
	}
	fed, err := r.start(ctx, c, stop, feed)
	if err != nil {
		return &Error{Program: r.program.Name, Disk: disk, Err: err}
	}
	waitErr := c.Wait()
	if c.Process != nil && ctx.Err() != nil { // what it has started must not go on
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // gone already, as a rule
	}
	feedErr := fed()
	if err := r.judge(ctx, waitErr, feedErr, output); err != nil {
		return &Error{Program: r.program.Name, Disk: disk, Output: outputText(output), Err: err}
	}
	return nil
}

// start starts the program, and its feeding. fed waits for the end of that.
func (r *run) start(ctx context.Context, c *exec.Cmd, stop context.CancelCauseFunc, feed func(context.Context, io.Writer) error) (fed func() error, err error) {
	if feed == nil {
		return func() error { return nil }, c.Start()
	}
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.Stdin = in
	err = c.Start()
	in.Close()
	if err != nil {
		out.Close()
		return nil, err
	}
	done := make(chan error, 1)
	go func() {
		err := feed(ctx, out)
		if err == nil {
			err = out.Close()
		} else if !unread(err) {
			stop(err) // the pipe stays open: its end would look like that of the input
		}
		done <- err
	}()
	return func() error {
		defer out.Close()
		_ = out.SetWriteDeadline(time.Now()) // nobody reads any more; fails where all was written
		return <-done
	}, nil
}

// judge says whether the program did its work.
func (r *run) judge(ctx context.Context, waitErr, feedErr error, output *printed.Tail) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var exit *exec.ExitError
	switch {
	case errors.As(waitErr, &exit) && slices.Contains(r.program.Warn, exit.ExitCode()):
		for line := range strings.Lines(outputText(output)) {
			r.report.Warnings = append(r.report.Warnings, r.program.Name+": "+strings.TrimRight(line, "\n"))
		}
	case waitErr != nil:
		return waitErr
	}
	if unread(feedErr) {
		return ErrEarly
	}
	return feedErr
}

// unread reports whether err is of a write that nobody read: the program had ended.
func unread(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrDeadlineExceeded)
}

// env is all of the program's environment.
func (r *run) env() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "LANG"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return append(env, r.program.Env...)
}

// secret returns a pipe that holds the program's secret, which stands in no
// argument, no variable and no file that the program could leave behind.
func (r *run) secret() (*os.File, error) {
	if r.program.Secret == "" {
		return nil, nil
	}
	data, err := os.ReadFile(r.program.Secret)
	if err != nil {
		return nil, fmt.Errorf("read its passphrase: %w", err)
	}
	if len(data) > maxSecret {
		return nil, fmt.Errorf("read its passphrase: %s has %d bytes, at most %d are passed on", r.program.Secret, len(data), maxSecret)
	}
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = out.Write(bytes.TrimRight(data, "\r\n"))
	if err = errors.Join(err, out.Close()); err != nil {
		in.Close()
		return nil, err
	}
	return in, nil
}

// outputText is what was kept, each line printable. A line that was cut is left out.
func outputText(t *printed.Tail) string {
	data, cut := t.Bytes()
	if _, rest, ok := bytes.Cut(data, []byte("\n")); ok && cut {
		data = rest
	}
	var lines []string
	for line := range bytes.Lines(bytes.TrimSpace(data)) {
		lines = append(lines, escape.Bytes(bytes.TrimRight(line, "\r\n")))
	}
	return strings.Join(lines, "\n")
}
