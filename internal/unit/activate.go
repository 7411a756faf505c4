//go:build linux

package unit

import (
	"context"
	"fmt"

	"github.com/coreos/go-systemd/v22/dbus"
)

// timers are what is started and stopped.
var timers = []string{Timer, CheckTimer}

// Activate has systemd read the files that were installed, and starts the
// timers.
func Activate(ctx context.Context, conn *dbus.Conn) error {
	if err := conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("have systemd read the units: %w", err)
	}
	for _, timer := range timers {
		if err := job(ctx, "start", timer, conn.RestartUnitContext); err != nil { // so that a new schedule counts
			return err
		}
	}
	return nil
}

// Deactivate stops the timers, and has systemd forget units that were removed. A
// round that is under way goes on.
func Deactivate(ctx context.Context, conn *dbus.Conn) error {
	units, err := conn.ListUnitsByNamesContext(ctx, timers)
	if err != nil {
		return fmt.Errorf("ask systemd about the timers: %w", err)
	}
	for _, u := range units {
		if u.ActiveState == "inactive" {
			continue
		}
		if err := job(ctx, "stop", u.Name, conn.StopUnitContext); err != nil {
			return err
		}
	}
	if err := conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("have systemd forget the units: %w", err)
	}
	return nil
}

// job runs a job on a timer to its end.
func job(ctx context.Context, verb, timer string, enqueue func(context.Context, string, string, chan<- string) (int, error)) error {
	done := make(chan string, 1)
	if _, err := enqueue(ctx, timer, "replace", done); err != nil {
		return fmt.Errorf("%s %s: %w", verb, timer, err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("%s %s: the job ended as %q (systemctl status %s says why)", verb, timer, result, timer)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", verb, timer, ctx.Err())
	}
}
