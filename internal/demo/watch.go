package demo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// WatchVerb is the hidden verb of the process that cleans up after a demo: it
// must end up in [Watch].
const WatchVerb = "demo-watch"

// watch starts the process that stops the VMs when this one ends, in whatever
// way: it waits for the end of a pipe that only this process holds. The
// function that is returned ends this process's part, and waits until the VMs
// are off.
func (d *demo) watch() (stop func() error, err error) {
	c := exec.Command(d.Executable, WatchVerb, d.Dir) // without a context: it must outlive every context
	c.Stdout, c.Stderr = d.Out, d.Out
	// Its own session: a Ctrl-C is for the demo, and the watch follows it.
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	return func() error {
		in.Close()
		if err := c.Wait(); err != nil {
			return fmt.Errorf("stop the demo's machines: %w", err)
		}
		return nil
	}, nil
}

// Watch waits for the end of in, then stops the VMs of the demo in dir.
func Watch(executable, dir string, in io.Reader) error {
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	config := dir + "/drydock.yaml"
	if _, err := os.Stat(config); err != nil {
		return nil // it ended before there was a VM
	}
	// A round that outlived the demo holds the lock, and brings its VM up
	// before it ends.
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Second) {
		c := exec.Command(executable, "--config", config, "stop", "--kill") // bounded by shutdown_timeout
		c.Stderr = os.Stderr
		err := c.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitLocked || time.Now().After(deadline) {
			return err
		}
	}
}

const (
	// exitLocked is drydock's exit code when another drydock is at work.
	exitLocked = 4
	// patience is how long a round may take to end after its demo died.
	patience = 10 * time.Minute
)
