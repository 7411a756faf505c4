//go:build linux

package systemd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"

	"github.com/drydock-vm/drydock/internal/vm"
)

// callTimeout is how long systemd may take to answer a question. It answers at
// once, unless it is reloading the units of a large host.
const callTimeout = 30 * time.Second

// connection is a connection to systemd, for one unit.
type connection struct {
	conn *systemd.Conn
	name string
}

// unit is what drydock has to know of a service: properties of the interfaces
// Unit and Service (org.freedesktop.systemd1(5)).
type unit struct {
	active      string        // ActiveState
	sub         string        // SubState
	condition   bool          // ConditionResult, and AssertResult
	result      string        // Result of the last run, or of its stop
	status      int32         // ExecMainStatus, an exit status or a signal
	restart     string        // Restart
	execStop    bool          // there is an ExecStop
	timeoutStop time.Duration // TimeoutStopUSec; the longest Duration if infinite
	invocation  string        // InvocationID, of the last start
}

// unit reads the properties of the unit.
func (c *connection) unit(ctx context.Context) (unit, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	all, err := c.conn.GetAllPropertiesContext(ctx, c.name)
	if err != nil {
		return unit{}, fmt.Errorf("ask systemd about the unit: %w", err)
	}
	p := properties{all: all}
	if load := read[string](&p, "LoadState"); load != "loaded" && p.err == nil {
		return unit{}, notLoaded(load)
	}
	u := unit{
		active:      read[string](&p, "ActiveState"),
		sub:         read[string](&p, "SubState"),
		condition:   read[bool](&p, "ConditionResult"),
		result:      read[string](&p, "Result"),
		status:      read[int32](&p, "ExecMainStatus"),
		restart:     read[string](&p, "Restart"),
		execStop:    len(read[[][]any](&p, "ExecStop")) > 0,
		timeoutStop: microseconds(read[uint64](&p, "TimeoutStopUSec")),
		invocation:  string(read[[]byte](&p, "InvocationID")),
	}
	return u, p.err
}

func notLoaded(load string) error {
	err := fmt.Errorf("systemd has no such unit (%s)", load)
	hint := "is the name right? After a change of its file: systemctl daemon-reload"
	if load == "masked" {
		err, hint = fmt.Errorf("the unit is masked"), "systemctl unmask it"
	}
	return vm.WithHint(err, hint)
}

// properties are a unit's, with the first error of reading one.
type properties struct {
	all map[string]any
	err error
}

func read[T any](p *properties, name string) T {
	value, ok := p.all[name].(T)
	if !ok && p.err == nil {
		p.err = fmt.Errorf("systemd's property %s is %T, which drydock does not know", name, p.all[name])
	}
	return value
}

// microseconds is a time of systemd's; its USEC_INFINITY is the longest.
func microseconds(n uint64) time.Duration {
	if n > math.MaxInt64/uint64(time.Microsecond) {
		return math.MaxInt64
	}
	return time.Duration(n) * time.Microsecond
}

// off reports whether nothing of the machine runs, nor is about to.
func (u unit) off() bool { return u.active == "inactive" || u.active == "failed" }

// comesBack reports whether systemd starts the unit again when its guest has
// powered off, as which QEMU exits with 0.
func (u unit) comesBack() bool { return u.restart == "always" || u.restart == "on-success" }

// outcome is how the unit ended, for people.
func (u unit) outcome() string {
	if u.result == "exit-code" || u.result == "signal" || u.result == "core-dump" {
		return fmt.Sprintf("%s %d", u.result, u.status)
	}
	return u.result
}

// awaitOff waits until the unit is off, for as long as ctx lasts. before is the
// unit as it was when the wait began: one that was started again meanwhile is an
// error.
func (c *connection) awaitOff(ctx context.Context, before unit) (bool, error) {
	for {
		u, err := c.unit(ctx)
		switch {
		case ctx.Err() != nil:
			return false, nil
		case err != nil || u.off():
			return err == nil, err
		case u.invocation != before.invocation:
			return false, vm.WithHint(
				errors.New("the guest powered off, and systemd started the unit again"),
				"its Restart= or another unit did that, or an ExecStop= that fails when the guest is off already",
			)
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-time.After(pollPause):
		}
	}
}
