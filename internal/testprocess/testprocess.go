//go:build linux

// Package testprocess starts processes that tests leave running.
package testprocess

import (
	"os/exec"
	"runtime"
	"testing"
)

// Start starts a command on a thread that lives as long as the command: Pdeathsig, with
// which nothing is left when the test process is killed, is sent when the thread ends that
// started it. The channel is closed when the command has ended.
func Start(t testing.TB, cmd *exec.Cmd) (ended <-chan struct{}) {
	t.Helper()
	started := make(chan error)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is killed
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	return done
}
