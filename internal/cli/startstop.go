package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/vm"
)

func (a *app) startCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "start [VM…]",
		Short: "Start VMs and wait until they are healthy",
		Long: `Start VMs, all or those that are named, and wait until their health probes pass.
A VM that runs already is only probed.`,
		RunE: func(c *cobra.Command, names []string) error {
			return a.eachVM(c.Context(), "start", names, a.startVM)
		},
	}
}

func (a *app) stopCmd() *cobra.Command {
	var kill bool
	c := &cobra.Command{
		Use:   "stop [VM…]",
		Short: "Shut VMs down in order",
		Long: `Ask the guests, all or those that are named, to power off, and wait for
shutdown_timeout. With --kill the power of those that still run, or are paused and
hear nothing, is taken away, and memory of theirs that libvirt has saved is given up.`,
		RunE: func(c *cobra.Command, names []string) error {
			return a.eachVM(c.Context(), "stop", names, func(ctx context.Context, h *host, v round.VM) error {
				return a.stopVM(ctx, v, kill)
			})
		},
	}
	c.Flags().BoolVar(&kill, "kill", false, "take the power away from those that do not shut down")
	return c
}

// eachVM does something to each VM with the host's lock held. One that fails
// does not keep it from the others.
func (a *app) eachVM(ctx context.Context, verb string, names []string, do func(context.Context, *host, round.VM) error) error {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	vms, err := h.pick(names)
	if err != nil {
		return err
	}
	lock, err := h.lock(verb)
	if err != nil {
		return err
	}
	defer lock.Release()
	var errs []error
	for _, v := range vms {
		if err := do(ctx, h, v); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", verb, v.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (a *app) startVM(ctx context.Context, h *host, v round.VM) error {
	m := &machines{h}
	mark := m.ConsoleMark(v)
	found, err := v.Machine.State(ctx)
	if err != nil {
		return err
	}
	if found.UsesDisks() {
		mark = 0 // what it printed when it started is long there
	}
	a.printf("starting %s, and waiting until it is healthy\n", v.Name)
	if err := v.Machine.Start(ctx); err != nil {
		return err
	}
	if err := m.Healthy(ctx, v, mark); err != nil {
		return err
	}
	a.printf("%s is running and healthy\n", v.Name)
	return nil
}

func (a *app) stopVM(ctx context.Context, v round.VM, kill bool) error {
	err := v.Machine.Shutdown(ctx, v.ShutdownTimeout)
	if kill && (errors.Is(err, vm.ErrShutdownTimeout) || errors.Is(err, vm.ErrPaused)) {
		err = v.Machine.Kill(ctx)
	}
	if err == nil {
		a.printf("%s is off\n", v.Name)
	}
	return err
}
