//go:build linux

package unit

import (
	"context"
	"fmt"

	"github.com/coreos/go-systemd/v22/dbus"
)

// Activate has systemd read the files that were installed, and starts the
// timer.
func Activate(ctx context.Context, conn *dbus.Conn) error {
	if err := conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("have systemd read the units: %w", err)
	}
	return job(ctx, "start", conn.RestartUnitContext) // so that a new schedule counts
}

// Deactivate stops the timer, and has systemd forget units that were removed. A
// round that is under way goes on.
func Deactivate(ctx context.Context, conn *dbus.Conn) error {
	units, err := conn.ListUnitsByNamesContext(ctx, []string{Timer})
	if err != nil {
		return fmt.Errorf("ask systemd about %s: %w", Timer, err)
	}
	if len(units) == 1 && units[0].ActiveState != "inactive" {
		if err := job(ctx, "stop", conn.StopUnitContext); err != nil {
			return err
		}
	}
	if err := conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("have systemd forget the units: %w", err)
	}
	return nil
}

// job runs a job on the timer to its end.
func job(ctx context.Context, verb string, enqueue func(context.Context, string, string, chan<- string) (int, error)) error {
	done := make(chan string, 1)
	if _, err := enqueue(ctx, Timer, "replace", done); err != nil {
		return fmt.Errorf("%s %s: %w", verb, Timer, err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("%s %s: the job ended as %q (systemctl status %s says why)", verb, Timer, result, Timer)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", verb, Timer, ctx.Err())
	}
}
