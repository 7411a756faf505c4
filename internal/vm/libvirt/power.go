//go:build linux

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/digitalocean/go-libvirt"

	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

const (
	// startTimeout is how long a start may take.
	startTimeout = 10 * time.Minute
	// killTimeout is how long QEMU may take to end: until its disk requests that are
	// under way have ended.
	killTimeout = 2 * time.Minute
	// pollPause is how long to wait before looking at the domain again.
	pollPause = 100 * time.Millisecond
)

// Start starts the domain. libvirt returns when its guest executes. Disks of which a part
// is elsewhere wait for it, as vm.Filler says: the guest does not execute before they do.
// One that was left in between goes on.
func (m *Machine) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return m.with(ctx, "start", func(d *domain) error {
		for {
			state, err := d.state()
			if err != nil {
				return err
			}
			switch state {
			case vm.Running:
				return d.reconnects(ctx)
			case vm.Paused:
				if left, err := d.left(ctx); err != nil || !left {
					return errors.Join(err, d.paused())
				}
				return d.goOn(ctx)
			case vm.Stopping:
			default:
				return d.create(ctx)
			}
			if err := sleep(ctx, pollPause); err != nil {
				return err
			}
		}
	})
}

// create starts a domain that is off.
func (d *domain) create(ctx context.Context) error {
	waits, err := d.waits()
	if err != nil {
		return err
	}
	flags := libvirt.DomainNone
	if waits {
		flags = libvirt.DomainStartPaused
	}
	_, err = d.conn.DomainCreateWithFlags(d.dom, uint32(flags))
	switch {
	case err == nil && waits:
		return d.goOn(ctx)
	case err == nil:
		return d.executes()
	}
	// Somebody else was faster, or it cannot start.
	if now, stateErr := d.state(); stateErr != nil || now != vm.Running {
		return vm.WithHint(fmt.Errorf("start the domain: %w", err), "/var/log/libvirt/qemu/"+d.dom.Name+".log may say why")
	}
	return nil
}

// goOn has the guest of a domain execute that was started with its CPUs stopped, unless its
// disks do not wait for a server. A QEMU that is too old has them never wait.
func (d *domain) goOn(ctx context.Context) error {
	err := d.reconnects(ctx)
	if refused, ok := errors.AsType[*qmp.Error](err); err != nil && (!ok || refused.Class != "CommandNotFound") {
		return err
	}
	if resumed := d.conn.DomainResume(d.dom); resumed != nil {
		return errors.Join(err, fmt.Errorf("have its guest execute: %w", resumed))
	}
	return errors.Join(err, d.executes())
}

// executes makes sure that a domain which has started executes.
func (d *domain) executes() error {
	state, err := d.state()
	switch {
	case err != nil:
		return err
	case state == vm.Paused:
		return d.paused()
	case !state.UsesDisks():
		return vm.WithHint(errors.New("it ended at once"), "/var/log/libvirt/qemu/"+d.dom.Name+".log may say why")
	}
	return nil
}

// paused says that the machine is paused, and what to do.
func (d *domain) paused() error {
	saved, err := d.conn.DomainHasManagedSaveImage(d.dom, 0)
	if err == nil && saved != 0 {
		return vm.WithHint(fmt.Errorf("%w: its memory is saved", vm.ErrPaused), "virsh start "+d.dom.Name+", or virsh managedsave-remove to give the memory up")
	}
	state, _, err := d.conn.DomainGetState(d.dom, 0)
	if err == nil && libvirt.DomainState(state) == libvirt.DomainCrashed {
		return vm.WithHint(fmt.Errorf("%w: its guest has crashed", vm.ErrPaused), "virsh destroy "+d.dom.Name+", when you have seen what it is kept for")
	}
	return vm.WithHint(vm.ErrPaused, "virsh resume "+d.dom.Name+", or power it off")
}

// Shutdown presses the power button of the domain, again and again, until it is off.
func (m *Machine) Shutdown(ctx context.Context, timeout time.Duration) error {
	given := ctx
	ctx, cancel := context.WithTimeout(ctx, timeout+callTimeout) // of the conversation
	defer cancel()
	return m.with(ctx, "shut down", func(d *domain) error {
		state, err := d.state()
		switch {
		case err != nil || !state.UsesDisks():
			return err
		case state == vm.Paused:
			if left, err := d.left(ctx); err == nil && left {
				// Resumed by hand its reads fail, and do not wait.
				return vm.WithHint(fmt.Errorf("%w: a drydock has started it from a backup, and died", vm.ErrPaused), "drydock start-from-backup goes on, or power it off")
			}
			return d.paused()
		}
		if err := d.staysOff(); err != nil {
			return err
		}
		err = vm.PressUntilGone(given, timeout, d.press, d.awaitOff)
		if errors.Is(err, vm.ErrShutdownTimeout) {
			return vm.WithHint(err, "does the guest react to its power button, and does the domain have <acpi/>?")
		}
		return err
	})
}

// press presses the power button once.
func (d *domain) press(context.Context) error {
	state, err := d.state()
	switch {
	case err != nil:
		return err
	case state == vm.Paused:
		return d.paused()
	}
	return d.conn.DomainShutdownFlags(d.dom, libvirt.DomainShutdownAcpiPowerBtn)
}

// awaitOff waits until the domain is off, or ctx ends, and reports whether it is.
func (d *domain) awaitOff(ctx context.Context) (bool, error) {
	for {
		state, err := d.state()
		switch {
		case err != nil || !state.UsesDisks():
			return err == nil, err
		case state == vm.Paused:
			return false, d.paused()
		}
		if sleep(ctx, pollPause) != nil {
			return false, nil
		}
	}
}

// staysOff refuses a domain that would be gone when its guest is off, or not be off.
func (d *domain) staysOff() error {
	persistent, err := d.conn.DomainIsPersistent(d.dom)
	if err != nil {
		return fmt.Errorf("ask whether it is persistent: %w", err)
	}
	if persistent == 0 {
		return vm.WithHint(errors.New("the domain is transient: once off, it would be gone"), "virsh dumpxml "+d.dom.Name+" > domain.xml && virsh define domain.xml")
	}
	var has struct {
		OnPowerOff string `xml:"on_poweroff"`
	}
	if err := d.xml(&has); err != nil {
		return err
	}
	switch has.OnPowerOff {
	case "", "destroy":
		return nil
	}
	return vm.WithHint(fmt.Errorf("it has <on_poweroff>%s</on_poweroff>, so it would not be off when its guest powers off", has.OnPowerOff),
		"virsh edit "+d.dom.Name+": <on_poweroff>destroy</on_poweroff>")
}

// Kill takes the machine's power away.
func (m *Machine) Kill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	return m.with(ctx, "kill", func(d *domain) error {
		state, err := d.state()
		if err != nil || !state.UsesDisks() {
			return err
		}
		active, err := d.conn.DomainIsActive(d.dom)
		if err != nil {
			return fmt.Errorf("ask whether it is active: %w", err)
		}
		if active == 0 { // its memory is saved
			return d.conn.DomainManagedSaveRemove(d.dom, 0)
		}
		err = d.conn.DomainDestroyFlags(d.dom, 0)
		if err == nil {
			return nil
		}
		if now, stateErr := d.state(); stateErr == nil && !now.UsesDisks() {
			return nil // it was off by itself
		}
		return fmt.Errorf("destroy the domain: %w", err)
	})
}

// sleep waits, or returns why it need not any more.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
