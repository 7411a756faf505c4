package cli

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/round"
)

// copyStatus is what drydock status says of a copy.
type copyStatus struct {
	Name     string `json:"name"`
	Location string `json:"location"`
	held
	VMs    []copiedVM `json:"vms"`
	Verify round.Due  `json:"verify"` // the next proof
}

// copiedVM is what a copy has of one VM.
type copiedVM struct {
	VM     string     `json:"vm"`
	Backup *time.Time `json:"backup,omitempty"` // time of the newest good backup there
	Alarm  string     `json:"alarm,omitempty"`  // a backup is missing there
	Proven *proven    `json:"proven,omitempty"` // the newest look at its backups there
}

// copyStatuses looks at the copies themselves, as [host.repositoryStatus] does at the
// repository. VMs of which nothing is backed up are left out.
func (h *host) copyStatuses(ctx context.Context, vms []round.VM) ([]copyStatus, error) {
	var out []copyStatus
	for _, c := range h.config.Copies {
		s := copyStatus{Name: copyName(c), Location: c.Path, VMs: []copiedVM{}}
		var err error
		if s.held, err = h.lookAt(ctx, c.Repository); err != nil {
			return nil, err
		}
		if s.Verify, err = h.copyProofs(c).Due(ctx); err != nil {
			return nil, err
		}
		for _, v := range vms {
			if !h.config.VMs[v.Name].BackedUp() {
				continue
			}
			one, err := h.copiedVM(ctx, c, v, s.held)
			if err != nil {
				return nil, err
			}
			s.VMs = append(s.VMs, one)
		}
		out = append(out, s)
	}
	return out, nil
}

func (h *host) copiedVM(ctx context.Context, c config.Copy, v round.VM, there held) (copiedVM, error) {
	s := copiedVM{VM: v.Name}
	newest, ok := there.newest[v.Name]
	if ok {
		s.Backup = &newest
	}
	maxAge := v.MaxAge
	if c.MaxAge != nil {
		maxAge = time.Duration(*c.MaxAge)
	}
	if ok || there.Error == "" { // what cannot be looked at is not said to be missing
		s.Alarm = round.Late(h.app.now(), newest, maxAge)
	}
	var err error
	s.Proven, err = h.proven(ctx, c.Path, v.Name)
	return s, err
}

// alarms are what is wrong with the copy, one line each.
func (s *copyStatus) alarms() []string {
	var out []string
	if s.Error != "" {
		out = append(out, fmt.Sprintf("the copy %s cannot be looked at as a whole: %s", s.Name, s.Error))
	}
	for _, v := range s.VMs {
		if v.Alarm != "" {
			out = append(out, fmt.Sprintf("%s: at the copy %s %s", v.VM, s.Name, v.Alarm))
		}
	}
	return out
}

// printCopies prints the copies for people, one line for each VM there.
func (a *app) printCopies(all []copyStatus) error {
	if len(all) == 0 {
		return nil
	}
	a.printf("\n")
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "COPY\tVM\tBACKUP\tPROVEN")
	for _, s := range all {
		for _, v := range s.VMs {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", escape.Line(s.Name), v.VM, v.backupCell(a.now()), v.Proven.cell(a.now()))
		}
	}
	return w.Flush()
}

func (v *copiedVM) backupCell(now time.Time) string {
	text := "never"
	if v.Backup != nil {
		text = ago(now, *v.Backup)
	}
	if v.Alarm != "" {
		text += " (!)"
	}
	return text
}
