package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/retain"
	"github.com/drydock-vm/drydock/internal/round"
)

func (a *app) backupsPlanCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "plan [VM…]",
		Short: "What the policies would remove, and why the rest stays",
		Long: `Show which backups the configured policies keep, and why, which would be removed,
and about how much space a prune would give back then. It changes nothing: drydock
backups retain, and each round, carry it out.`,
		RunE: func(c *cobra.Command, names []string) error { return a.backupsPlan(c.Context(), names) },
	}
}

// retentionPlan is drydock backups plan.
type retentionPlan struct {
	VMs   []vmRetention `json:"vms"`
	Freed *int64        `json:"freed"` // bytes; null if it cannot be told
	Error string        `json:"error,omitempty"`
	Prune round.Due     `json:"prune"`
}

type vmRetention struct {
	VM      string           `json:"vm"`
	Policy  string           `json:"policy"`
	Backups []backupDecision `json:"backups"`
}

type backupDecision struct {
	backupRef
	Keep []string `json:"keep"` // the reasons; without any it goes
}

func (a *app) backupsPlan(ctx context.Context, names []string) error {
	return a.withRepository(ctx, func(h *host, repo *repository.Repository) error {
		vms, err := h.pick(names)
		if err != nil {
			return err
		}
		plans, unread := retain.Make(ctx, repo, h.policies(vms), a.now())
		if plans == nil {
			return unread
		}
		out, err := h.retentionPlan(ctx, repo, plans)
		if err != nil {
			return err
		}
		if a.json {
			err = a.printJSON(out)
		} else {
			err = a.printRetention(out)
		}
		if err != nil {
			return err
		}
		return someUnreadable(unread)
	})
}

func (h *host) retentionPlan(ctx context.Context, repo *repository.Repository, plans []*retain.Plan) (*retentionPlan, error) {
	out := &retentionPlan{VMs: []vmRetention{}}
	var goes []*repository.Snapshot
	for _, p := range plans {
		v := vmRetention{VM: p.VM.Name, Policy: p.VM.Policy.String(), Backups: []backupDecision{}}
		for _, d := range p.Backups {
			v.Backups = append(v.Backups, backupDecision{newBackupRef(d.Snapshot), d.Keep})
		}
		out.VMs = append(out.VMs, v)
		goes = append(goes, p.Removals()...)
	}
	freed, err := retain.Freed(ctx, repo, goes)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		out.Error = err.Error()
	} else {
		out.Freed = &freed
	}
	out.Prune, err = h.runner.PruneDue(ctx)
	return out, err
}

func (a *app) printRetention(p *retentionPlan) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	goes := 0
	for _, v := range p.VMs {
		fmt.Fprintf(w, "%s (%s)\n", v.VM, v.Policy)
		for _, b := range v.Backups {
			word, why := "keep", strings.Join(b.Keep, ", ")
			if len(b.Keep) == 0 {
				word = "remove"
				goes++
			}
			fmt.Fprintf(w, "  %s\t%.8s\t%s\t%s\n", word, b.ID, b.Time.Local().Format(time.DateTime), why)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	freed := "how much that would free is not known: " + escape.Line(p.Error)
	if p.Freed != nil {
		freed = fmt.Sprintf("a prune would then give back about %s", round.Bytes(*p.Freed))
	}
	word := "not due"
	if p.Prune.Due {
		word = "due"
	}
	a.printf("%d would be removed; %s (prune: %s, %s)\n", goes, freed, word, p.Prune.Reason)
	return nil
}
