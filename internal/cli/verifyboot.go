package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/round"
)

// bootsReport is drydock verify --mode boot --json.
type bootsReport struct {
	Mode  string    `json:"mode"`
	Good  bool      `json:"good"`
	Boots []*booted `json:"boots"`
	// NotTried are those of which nothing is known: for a reason that is not the backup's.
	NotTried []notTried `json:"not_tried,omitempty"`
}

type notTried struct {
	VM    string `json:"vm"` // or VM@BACKUP
	Error string `json:"error"`
}

// verifyBoot starts VMs from their newest backups, or from those that are named.
func (a *app) verifyBoot(ctx context.Context, names []string) error {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	if err := (&boots{h}).sweep(); err != nil {
		return err
	}
	if len(names) == 0 {
		for _, v := range h.config.SortedVMs() {
			if bootable(v) {
				names = append(names, v.Name)
			}
		}
	}
	for _, name := range names {
		if _, err := h.pick([]string{vmOf(name)}); err != nil {
			return err
		}
	}
	out := bootsReport{Mode: modeBoot, Good: true, Boots: []*booted{}}
	for _, name := range names {
		r, err := h.bootNamed(ctx, name)
		if ctx.Err() != nil {
			return err
		}
		if err != nil { // it keeps no other one from being tried
			out.NotTried = append(out.NotTried, notTried{name, err.Error()})
			out.Good = false
			continue
		}
		out.Boots = append(out.Boots, r)
		out.Good = out.Good && r.good()
	}
	if a.json {
		err = a.printJSON(out)
	} else {
		err = a.printBoots(&out)
	}
	if err == nil && !out.Good {
		return &exitError{exitFailed, fmt.Errorf("not every backup is proven to boot: %s", escape.Line(oneLine(out.problems())))}
	}
	return err
}

// bootable reports whether rounds start the VM from its backups.
func bootable(v *config.VM) bool {
	if v.Boot != nil && v.Boot.Skip || v.Builder != nil {
		return false
	}
	for _, d := range v.Disks {
		if d.Backup != config.BackupOff {
			return true
		}
	}
	return false
}

func vmOf(name string) string {
	vm, _, _ := strings.Cut(name, "@")
	return vm
}

// bootNamed starts the VM of a name, VM or VM@BACKUP.
func (h *host) bootNamed(ctx context.Context, name string) (*booted, error) {
	_, which, ok := strings.Cut(name, "@")
	if !ok {
		which = "latest"
	}
	fmt.Fprintf(h.app.stderr, "starting %s from its backup, apart from the world\n", name)
	return (&boots{h}).prove(ctx, h.config.VMs[vmOf(name)], which)
}

func (r *bootsReport) problems() []string {
	var out []string
	for _, b := range r.Boots {
		if !b.good() {
			out = append(out, fmt.Sprintf("%s@%s: %s", b.VM, shortID(b.Backup), b.Error))
		}
	}
	for _, n := range r.NotTried {
		out = append(out, n.Error)
	}
	return out
}

func (a *app) printBoots(r *bootsReport) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BACKUP\tVM\tTIME\tPREPARED IN\tREAD\tRESULT")
	for _, b := range r.Boots {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", shortID(b.Backup), b.VM, b.Time.Local().Format(time.DateTime),
			span(b.Prepare), round.Bytes(b.Read), escape.Line(b.String()))
	}
	return w.Flush()
}

// shortID is as much of a backup's ID as is shown.
func shortID(id string) string { return id[:min(8, len(id))] }
