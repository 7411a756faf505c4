package cli

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/flock"
	"github.com/drydock-vm/drydock/internal/image"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/sandbox"
	"github.com/drydock-vm/drydock/internal/snapshot"
	"github.com/drydock-vm/drydock/internal/state"
	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/libvirt"
	"github.com/drydock-vm/drydock/internal/vm/qemu"
	"github.com/drydock-vm/drydock/internal/vm/systemd"
)

// host is the configured host with everything wired together.
type host struct {
	app     *app
	config  *config.Config
	db      *state.DB
	images  *image.Store
	bitmaps *bitmaps
	vms     []round.VM // in the order of a round
	backups *backups
	runner  *round.Runner
}

// openHost loads the configuration and wires the rooms. It takes no lock and
// starts nothing.
func (a *app) openHost(ctx context.Context, observe func(round.Event)) (*host, error) {
	c, err := a.load()
	if err != nil {
		return nil, err
	}
	db, err := state.Open(ctx, filepath.Join(c.State, "state.db"))
	if err != nil {
		return nil, err
	}
	tool := qemuimg.New(qemuimg.Options{})
	h := &host{
		app: a, config: c, db: db,
		images:  image.New(image.Options{Dir: filepath.Join(c.State, "images"), QEMUImg: tool, Now: a.now}),
		bitmaps: newBitmaps(c, tool),
	}
	for _, v := range c.SortedVMs() {
		m, err := machine(c, v)
		if err != nil {
			db.Close()
			return nil, fmt.Errorf("%s: %w", v.Name, err)
		}
		r := roundVM(v, m)
		if from, err := h.fromBackup(v.Name); err != nil {
			r.Hold = err.Error() // of this VM alone
		} else {
			r.Hold = from.hold()
		}
		h.vms = append(h.vms, r)
	}
	b := &backups{h: h}
	h.backups = b
	h.runner = round.New(round.Options{
		State:     db,
		Machines:  &machines{h},
		Snapshots: &snapshots{h, snapshot.New(snapshot.Options{QEMUImg: tool})},
		Images:    &rootDisks{h.images},
		Builds:    &builds{h},
		Sources:   sources{h.images, h.bitmaps},
		Backups:   b,
		Sinks:     &sinks{h},
		Retention: retention{h, b}, PruneEvery: pruneEvery(c),
		Copies:  copies{h, b},
		Proofs:  h.proofs(),
		Boots:   &boots{h},
		Now:     a.now,
		Observe: observe,
	})
	return h, nil
}

func (h *host) close() { h.db.Close() }

// lock takes the lock of all verbs that change what rounds work with.
func (h *host) lock(verb string) (*flock.Lock, error) { return state.AcquireLock(h.config.State, verb) }

// machine makes the driver of a VM.
func machine(c *config.Config, v *config.VM) (vm.Machine, error) {
	switch v.Driver {
	case config.DriverSystemd:
		return systemd.New(systemd.Options{Unit: v.Unit, QMPSocket: v.QMP, Console: v.Console})
	case config.DriverLibvirt:
		return libvirt.New(libvirt.Options{Domain: v.Domain, Socket: v.Socket, Console: v.Console})
	}
	return qemu.New(qemu.Options{
		Name: v.Name, Command: v.Command,
		RuntimeDir: filepath.Join(c.Runtime, "vm", v.Name),
		LogDir:     filepath.Join(c.State, "log"),
	})
}

func roundVM(v *config.VM, m vm.Machine) round.VM {
	r := round.VM{
		Name: v.Name, Machine: m,
		ShutdownTimeout: time.Duration(v.ShutdownTimeout),
		ForceShutdown:   v.OnShutdownTimeout == config.TimeoutForce,
		Retain:          policyText(policy(v.Retain)),
	}
	if v.MaxAge != nil {
		r.MaxAge = time.Duration(*v.MaxAge)
	}
	r.Sinks = slices.Sorted(maps.Keys(v.Sinks))
	for _, d := range v.SortedDisks() {
		r.Disks = append(r.Disks, round.Disk{
			Name: d.Name, Path: d.Path, Format: d.Format, Image: d.Image, Backup: d.Backup != config.BackupOff,
		})
	}
	if v.Builder != nil {
		r.Builder = &round.Builder{Every: time.Duration(v.Builder.Every)}
	}
	return r
}

// pick returns the VMs of these names, in the order of a round; all without
// names.
func (h *host) pick(names []string) ([]round.VM, error) {
	for _, n := range names {
		if _, ok := h.config.VMs[n]; !ok {
			return nil, usageError("there is no VM %q in %s (there are: %s)", n, h.app.configPath, strings.Join(h.names(), ", "))
		}
	}
	var out []round.VM
	for _, v := range h.vms {
		if len(names) == 0 || slices.Contains(names, v.Name) {
			out = append(out, v)
		}
	}
	return out, nil
}

func (h *host) names() []string {
	var out []string
	for _, v := range h.vms {
		out = append(out, v.Name)
	}
	return out
}

// builder returns the VM of that name if it is the builder.
func (h *host) builder(name string) (round.VM, error) {
	vms, err := h.pick([]string{name})
	if err != nil {
		return round.VM{}, err
	}
	if vms[0].Builder == nil {
		return round.VM{}, usageError("%s is not the builder (give it a builder: section in %s)", name, h.app.configPath)
	}
	return vms[0], nil
}

// sandboxOptions are how disk reader workers run on this host. name is what errors
// call what one reads; "" is the names of its disks.
func sandboxOptions(c *config.Config, name string) sandbox.Options {
	o := sandbox.Options{Name: name, MemoryLimit: int64(c.Sandbox.Memory)}
	for _, l := range c.Sandbox.AllowWithout {
		o.AllowWithout = append(o.AllowWithout, string(l))
	}
	return o
}
