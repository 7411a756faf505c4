//go:build linux

// Package vmtest is the contract of [vm.Machine] as tests, which every driver
// runs on real machines.
package vmtest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/vm"
)

// Open returns a machine under test. All that one Open returns stand for the
// same VM, as they would in processes of drydock one after the other. The VM is
// off at first, and whoever made Open sees to it that it is off after the test.
type Open func() vm.Machine

// Deaf runs the part of the contract that a guest needs to do nothing for. The
// VM's guest does not react to its power button.
func Deaf(t *testing.T, open Open) {
	ctx := deadline(t)
	m := open()
	WantState(t, m, vm.Off)
	if err := m.Shutdown(ctx, time.Minute); err != nil {
		t.Errorf("shutdown of a machine that is off: %v", err)
	}
	if err := m.Kill(ctx); err != nil {
		t.Errorf("kill of a machine that is off: %v", err)
	}
	WantState(t, m, vm.Off)

	concurrentStart(t, open)
	WantState(t, m, vm.Running)
	WantState(t, open(), vm.Running)
	if err := open().Start(ctx); err != nil {
		t.Errorf("start of a machine that runs: %v", err)
	}

	if err := m.Shutdown(ctx, 300*time.Millisecond); !errors.Is(err, vm.ErrShutdownTimeout) {
		t.Errorf("shutdown of a deaf guest: %v", err)
	}
	WantState(t, m, vm.Running)
	given, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := m.Shutdown(given, time.Hour); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, vm.ErrShutdownTimeout) {
		t.Errorf("shutdown that is called off: %v", err)
	}
	WantState(t, open(), vm.Running)

	if err := open().Kill(ctx); err != nil {
		t.Fatalf("kill: %v", err)
	}
	WantState(t, m, vm.Off)
	if err := m.Start(ctx); err != nil {
		t.Fatalf("start after a kill: %v", err)
	}
	WantState(t, m, vm.Running)
	if err := m.Kill(ctx); err != nil {
		t.Errorf("kill: %v", err)
	}
	WantState(t, m, vm.Off)
}

// Obedient runs the part of the contract that needs a guest which reacts to its
// power button. ready waits until it has booted.
func Obedient(t *testing.T, open Open, ready func(context.Context) error) {
	ctx := deadline(t)
	m := open()
	if err := m.Start(ctx); err != nil {
		t.Fatalf("start: %v", err)
	}
	if err := ready(ctx); err != nil {
		t.Fatal(err)
	}
	WantState(t, open(), vm.Running)
	if err := open().Shutdown(ctx, 2*time.Minute); err != nil {
		t.Fatalf("shutdown: %v", err)
	}
	WantState(t, m, vm.Off)

	// A button that is pressed while the guest boots may not be heard; it must
	// go down all the same.
	if err := m.Start(ctx); err != nil {
		t.Fatalf("start after a shutdown: %v", err)
	}
	if err := m.Shutdown(ctx, 2*time.Minute); err != nil {
		t.Errorf("shutdown of a guest that is booting: %v", err)
	}
	WantState(t, m, vm.Off)
}

func concurrentStart(t *testing.T, open Open) {
	t.Helper()
	ctx := deadline(t)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if err := open().Start(ctx); err != nil {
				t.Errorf("one of three starts at once: %v", err)
			}
		})
	}
	all.Wait()
}

// WantState fails a test whose machine is in another state.
func WantState(t *testing.T, m vm.Machine, state vm.State) {
	t.Helper()
	got, err := m.State(deadline(t))
	if err != nil || got != state {
		t.Errorf("the machine is %q, want %q (%v)", got, state, err)
	}
}

// WantError looks for what an error of a driver is, and for words of its hint.
func WantError(t *testing.T, err, is error, hint string) {
	t.Helper()
	var failed *vm.Error
	if !errors.As(err, &failed) || !strings.Contains(failed.Hint, hint) || is != nil && !errors.Is(err, is) {
		t.Errorf("error %v, want %v with hint %q", err, is, hint)
	}
}

// deadline ends what hangs; a guest on a busy machine takes minutes.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
