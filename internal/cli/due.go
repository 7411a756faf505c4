package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) dueCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "due VM",
		Short: "Say whether the builder should build now (for ExecCondition=)",
		Long: `Say whether a build is due: none was ever finished, the build specification has
changed since, or the last one is as old as builder.every says. It is a matter
of state and not of the weekday, so a missed night is caught up.

Exit codes: 0 due, 1 not due, 255 it cannot be told. They are what ExecCondition=
in a systemd unit expects: the unit is started, skipped, or fails.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			due, err := a.due(c.Context(), names[0])
			if err != nil {
				return &exitError{exitDueError, err}
			}
			if !due {
				return &exitError{code: exitFailed}
			}
			return nil
		},
	}
}

func (a *app) due(ctx context.Context, name string) (bool, error) {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return false, err
	}
	defer h.close()
	v, err := h.builder(name)
	if err != nil {
		return false, err
	}
	d, err := h.runner.Due(ctx, v)
	if err != nil {
		return false, err
	}
	if a.json {
		return d.Due, a.printJSON(d)
	}
	word := "not due"
	if d.Due {
		word = "due"
	}
	a.printf("%s: %s\n", word, d.Reason)
	return d.Due, nil
}
