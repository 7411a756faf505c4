//go:build linux

package libvirt

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

// monitorTimeout is how long QEMU may take to answer a command that libvirt takes to it.
const monitorTimeout = 30 * time.Second

// CanFill is described at [vm.Filler]. What libvirt would not look for in the header of an
// image, what it lies on, the guest would see as zeros.
func (m *Machine) CanFill(ctx context.Context, path string) error {
	return m.with(ctx, lookFor(path), func(d *domain) error {
		has, err := d.attached(path)
		if err != nil {
			return err
		}
		edit := "virsh edit " + d.dom.Name + ": "
		var unknown error // of a volume, unless another disk is the image
		for i := range has.List {
			at := &has.List[i]
			image, err := d.path(at)
			switch {
			case err != nil:
				unknown = vm.WithHint(fmt.Errorf("its disk %s is volume %s, of which nobody knows whether it is this one: %w", at.Target.Dev, at.Source.Volume, err), edit+"<disk type='file'> with <source file='…'/>")
			case !same(image, path):
			case at.Driver.Type != "qcow2":
				return vm.WithHint(fmt.Errorf("its disk %s is not declared as qcow2", at.Target.Dev), edit+"type='qcow2' in the <driver> of the disk")
			case at.Backing != nil:
				return vm.WithHint(fmt.Errorf("it is written down what its disk %s lies on, which would be something else", at.Target.Dev), edit+"remove <backingStore> from the disk")
			default:
				return nil
			}
		}
		return unknown
	})
}

// Fill is described at [vm.Filler]. libvirt's own "blockpull" would do the same, but for
// the end, where a QEMU that is killed leaves zeros (see [qmp.Fill]). So it comes
// afterwards, when it has nothing left to copy: libvirt learns that the image lies on
// nothing, and forgets what was below it.
func (m *Machine) Fill(ctx context.Context, path string, progress func(done, of int64)) error {
	err := qmp.Fill(ctx, m.monitor, path, progress)
	if err == nil {
		err = m.look(ctx, func(d *domain) error { return d.pull(ctx, path) })
	}
	if err == nil {
		err = m.monitor(ctx, qmp.Disconnect)
	}
	return m.fail("fill in a disk of", err)
}

// monitor is a [qmp.Reach].
func (m *Machine) monitor(ctx context.Context, do func(context.Context, qmp.Monitor) error) error {
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	return m.look(ctx, func(d *domain) error { return do(ctx, d.monitor()) })
}

// monitor is the domain's QEMU.
func (d *domain) monitor() qmp.Monitor {
	return qmp.Carried(func(_ context.Context, command string) (string, error) {
		return d.conn.QEMUDomainMonitorCommand(d.dom, command, 0)
	})
}

// waits reports whether a disk of a domain that is off lies on a server for which its
// header has QEMU wait. Of a volume that was put into its pool's folder the pool learns.
func (d *domain) waits() (waits bool, err error) {
	var has disks
	if err := d.xml(&has); err != nil {
		return false, err
	}
	for i := range has.List {
		at := &has.List[i]
		if at.Driver.Type != "qcow2" {
			continue
		}
		// What cannot be found or read libvirt refuses, and says why.
		path, _ := d.path(at)
		if h, err := qemuimg.ReadHeader(path); err != nil || !qmp.HasWait(h.Backing) {
			continue
		}
		waits = true
		if at.Source.Volume != "" {
			if err := d.learn(at.Source.Pool, at.Source.Volume); err != nil {
				return false, err
			}
		}
	}
	return waits, nil
}

// learn has a pool look at its folder again, if it does not know of a volume in it.
func (d *domain) learn(pool, volume string) error {
	p, err := d.conn.StoragePoolLookupByName(pool)
	if err != nil {
		return fmt.Errorf("look for storage pool %s: %w", pool, err)
	}
	if _, err := d.conn.StorageVolLookupByName(p, volume); err == nil {
		return nil
	}
	if err := d.conn.StoragePoolRefresh(p, 0); err != nil {
		return vm.WithHint(fmt.Errorf("have storage pool %s look for volume %s: %w", pool, volume, err), "virsh pool-start "+pool+", or virsh pool-refresh "+pool)
	}
	return nil
}

// served reports whether a disk of a domain that is not off lies on a server.
func (d *domain) served() (bool, error) {
	var has disks
	err := d.xml(&has)
	return slices.ContainsFunc(has.List, diskXML.served), err
}

// left reports whether a paused domain is one that [Machine.Start] has left before its
// guest executed. It tells QEMU nothing if no disk lies on a server: libvirt notes of each
// domain whose QEMU was told something.
func (d *domain) left(ctx context.Context) (bool, error) {
	if served, err := d.served(); err != nil || !served {
		return false, err
	}
	return qmp.Unbegun(ctx, d.monitor())
}

// reconnects has QEMU wait for a server that a disk lies on, if one does.
func (d *domain) reconnects(ctx context.Context) error {
	if served, err := d.served(); err != nil || !served {
		return err
	}
	if err := qmp.Reconnect(ctx, d.monitor()); err != nil {
		return vm.WithHint(fmt.Errorf("its reads fail, and do not wait, when the server is gone that its disks lie on: %w", err), "drydock start-from-backup has to serve them until they are filled in")
	}
	return nil
}

// pull has libvirt forget what the image at path lay on.
func (d *domain) pull(ctx context.Context, path string) error {
	var has disks
	if err := d.xml(&has); err != nil {
		return err
	}
	for i := range has.List {
		at := &has.List[i]
		if !at.served() {
			continue
		}
		if image, err := d.path(at); err != nil || !same(image, path) {
			continue // err is of another disk: this one was found by its path
		}
		if err := d.conn.DomainBlockPull(d.dom, at.Target.Dev, 0, 0); err != nil {
			return fmt.Errorf("tell libvirt that %s lies on nothing: %w", path, err)
		}
		return d.awaitBlockJob(ctx, at.Target.Dev)
	}
	return nil
}

// awaitBlockJob waits until libvirt is done with a block job.
func (d *domain) awaitBlockJob(ctx context.Context, disk string) error {
	for {
		found, _, _, _, _, err := d.conn.DomainGetBlockJobInfo(d.dom, disk, 0)
		if err != nil || found == 0 {
			return err
		}
		if err := sleep(ctx, pollPause); err != nil {
			return err
		}
	}
}
