//go:build linux

// Package libvirt drives virtual machines that are domains of libvirt's QEMU
// driver, over the socket of its daemon: libvirtd, or virtqemud.
//
// A domain must be persistent, so that it is still there when its guest is off, and
// must stay off when its guest powers off (<on_poweroff>destroy</on_poweroff>, as is
// the default). What would not come back, or would come back by itself, is refused with
// the line that its XML lacks. It is shut down by its ACPI power button, and never
// through an agent in the guest: no guest talks to drydock.
//
// A domain whose memory libvirt has saved ("virsh managedsave") counts as paused: it is
// off, but what it had in memory still belongs to its disks. So does one whose guest has
// crashed, if libvirt keeps it as it is.
//
// It was tried with libvirt 9.0, and needs 1.2.9 or newer.
package libvirt

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"

	"github.com/drydock-vm/drydock/internal/vm"
)

// The places of libvirt's daemons for the whole host.
const (
	// DefaultSocket is that of libvirtd, and of the proxy that stands for it where
	// the daemons are split.
	DefaultSocket = "/run/libvirt/libvirt-sock"
	// Folder is where the daemon keeps the XML of domains.
	Folder = "/etc/libvirt/qemu"
)

// Options say which domain is the machine.
type Options struct {
	// Domain is its name.
	Domain string
	// Socket is the path of the daemon's socket; "" means [DefaultSocket].
	Socket string
	// Console is the file that the serial console is appended to, or empty.
	Console string
}

// Machine is a VM that is a domain. It implements [vm.Machine], [vm.Console],
// [vm.Defined], [vm.Attacher] and [vm.Filler].
type Machine struct{ o Options }

// New checks the options and returns the machine. It asks libvirt nothing.
func New(o Options) (*Machine, error) {
	if o.Socket == "" {
		o.Socket = DefaultSocket
	}
	if o.Domain == "" {
		return nil, errors.New("a domain needs a name")
	}
	for _, path := range []string{o.Socket, o.Console} {
		if path != "" && !filepath.IsAbs(path) {
			return nil, fmt.Errorf("domain %s: %q is not an absolute path", o.Domain, path)
		}
	}
	return &Machine{o}, nil
}

// ConsolePath names the file of the serial console, or is empty.
func (m *Machine) ConsolePath() string { return m.o.Console }

// State says what the machine is doing.
func (m *Machine) State(ctx context.Context) (vm.State, error) {
	var state vm.State
	err := m.with(ctx, "state", func(d *domain) (err error) {
		state, err = d.state()
		return err
	})
	return state, err
}

// domain is the machine's domain, while drydock is connected.
type domain struct {
	conn *libvirt.Libvirt
	dom  libvirt.Domain
}

// state is virDomainGetState in the terms of package vm (virDomainState in
// libvirt-domain.h).
func (d *domain) state() (vm.State, error) {
	state, _, err := d.conn.DomainGetState(d.dom, 0)
	if err != nil {
		return "", fmt.Errorf("ask for its state: %w", err)
	}
	switch libvirt.DomainState(state) {
	case libvirt.DomainRunning, libvirt.DomainBlocked:
		return vm.Running, nil
	case libvirt.DomainPaused, libvirt.DomainPmsuspended:
		return vm.Paused, nil
	case libvirt.DomainShutdown: // the guest is off, QEMU is about to end
		return vm.Stopping, nil
	case libvirt.DomainCrashed: // <on_crash>preserve</on_crash> keeps its QEMU, which has the disks
		active, err := d.conn.DomainIsActive(d.dom)
		if err != nil {
			return "", fmt.Errorf("ask whether it is active: %w", err)
		}
		if active != 0 {
			return vm.Paused, nil
		}
		return vm.Failed, nil
	case libvirt.DomainShutoff:
		saved, err := d.conn.DomainHasManagedSaveImage(d.dom, 0)
		if err != nil {
			return "", fmt.Errorf("ask whether its memory is saved: %w", err)
		}
		if saved != 0 {
			return vm.Paused, nil
		}
		return vm.Off, nil
	}
	return "", fmt.Errorf("libvirt says that it is in state %d, which drydock does not know", state)
}

// xml reads of the domain's XML, as it is now, what into asks for.
func (d *domain) xml(into any) error {
	text, err := d.conn.DomainGetXMLDesc(d.dom, 0)
	if err != nil {
		return fmt.Errorf("ask for its XML: %w", err)
	}
	if err := xml.Unmarshal([]byte(text), into); err != nil {
		return fmt.Errorf("read its XML: %w", err)
	}
	return nil
}

// callTimeout bounds a conversation with the daemon whose context has no end of its own:
// the first one after its start waits while it tries every QEMU that there is.
const callTimeout = 2 * time.Minute

// with is look, with the error of an operation.
func (m *Machine) with(ctx context.Context, op string, do func(*domain) error) error {
	return m.fail(op, m.look(ctx, do))
}

// look connects to the daemon and looks the domain up, for as long as do takes, at most
// until ctx ends: the library's calls know no context, but fail once their connection is
// closed.
func (m *Machine) look(ctx context.Context, do func(*domain) error) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	return m.connected(ctx, func(conn *libvirt.Libvirt) error {
		dom, err := conn.DomainLookupByName(m.o.Domain)
		if libvirt.IsNotFound(err) {
			return vm.WithHint(errors.New("libvirt has no domain of this name"), "virsh list --all shows those that there are")
		}
		if err != nil {
			return fmt.Errorf("look the domain up: %w", err)
		}
		return do(&domain{conn, dom})
	})
}

// connected connects to the daemon for as long as do takes.
func (m *Machine) connected(ctx context.Context, do func(*libvirt.Libvirt) error) error {
	raw, err := new(net.Dialer).DialContext(ctx, "unix", m.o.Socket)
	if err != nil {
		return vm.WithHint(fmt.Errorf("connect to libvirt: %w", err), "does libvirtd run, is drydock run by root, and is this its socket?")
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	conn := libvirt.NewWithDialer(dialers.NewAlreadyConnected(raw))
	if err := conn.ConnectToURI(libvirt.QEMUSystem); err != nil {
		return m.ended(ctx, fmt.Errorf("connect to libvirt's %s: %w", libvirt.QEMUSystem, err))
	}
	err = do(conn)
	if ctx.Err() == nil {
		// The daemon forgets the connection with its socket, whatever this says.
		_ = conn.Disconnect()
	}
	return m.ended(ctx, err)
}

// ended says why a connection was closed if the context is.
func (m *Machine) ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		return fmt.Errorf("%w (%w)", ctx.Err(), err)
	}
	return err
}

// fail is the error of an operation on this machine.
func (m *Machine) fail(op string, err error) error { return vm.Fail(op, m.o.Domain, err) }
