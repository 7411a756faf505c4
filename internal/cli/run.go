package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/state"
)

func (a *app) runCmd() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:   "run [VM…]",
		Short: "Run a round now",
		Long: `Run a round now, over all VMs or those that are named: each is stopped,
snapshotted, updated if there is a newer image, started and probed; then all are
backed up while they run. Then the retention policies are applied, and space is
given back if that is due. What an interrupted round left is put right first.

Exit codes: 0 done, 1 failed, 3 done with warnings (a VM was skipped, an image
rolled back, or a backup is missing), 4 another run holds the lock.`,
		RunE: func(c *cobra.Command, names []string) error {
			if dryRun {
				return a.plan(c.Context(), names)
			}
			return a.run(c.Context(), names)
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print the plan and do nothing, as drydock plan does")
	return c
}

func (a *app) run(ctx context.Context, names []string) error {
	h, err := a.openHost(ctx, a.observer())
	if err != nil {
		return err
	}
	defer h.close()
	vms, err := h.pick(names)
	if err != nil {
		return err
	}
	lock, err := h.lock("run")
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := (&boots{h}).sweep(); err != nil {
		return err
	}
	recovery, err := h.runner.Recover(context.WithoutCancel(ctx), h.vms)
	if err != nil {
		return err
	}
	plan, err := h.runner.Plan(ctx, vms)
	if err != nil {
		return err
	}
	report, err := h.runner.Run(ctx, plan, recovery)
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(report)
	} else {
		a.printReport(report)
	}
	if err != nil {
		return err
	}
	return outcomeError(report)
}

// outcomeError turns the outcome of a round into an exit code and one line.
func outcomeError(r *round.Report) error {
	problems := r.Problems()
	switch r.Outcome {
	case state.Done:
		return nil
	case state.Warnings:
		return &exitError{exitWarnings, fmt.Errorf("round %s done with warnings: %s", r.Round, oneLine(problems))}
	}
	return &exitError{exitFailed, fmt.Errorf("round %s failed: %s", r.Round, oneLine(problems))}
}

func oneLine(problems []string) string {
	switch len(problems) {
	case 0:
		return "see the report"
	case 1:
		return problems[0]
	}
	return fmt.Sprintf("%s (and %d more, see the report)", problems[0], len(problems)-1)
}

func (a *app) recoverCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "recover",
		Short: "Put right what an interrupted round left",
		Long: `Finish or undo what a round left in the air when its process or its host died:
put back a root disk that was not proven, start what was running, drop
snapshots, end machines that were started from backups. It is safe to run at any time, and does nothing when there is nothing
to do.`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return a.recover(c.Context()) },
	}
}

func (a *app) recover(ctx context.Context) error {
	h, err := a.openHost(ctx, a.observer())
	if err != nil {
		return err
	}
	defer h.close()
	lock, err := h.lock("recover")
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := (&boots{h}).sweep(); err != nil {
		return err
	}
	rec, err := h.runner.Recover(ctx, h.vms)
	if err != nil {
		return err
	}
	if rec == nil {
		rec = &round.Recovery{Rounds: []string{}}
	}
	if a.json {
		if err := a.printJSON(rec); err != nil {
			return err
		}
	} else if len(rec.Rounds) == 0 {
		a.printf("nothing to recover\n")
	}
	if len(rec.Warnings) > 0 {
		return fmt.Errorf("not all could be put right: %s", oneLine(rec.Warnings))
	}
	return nil
}
