package round_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/state"
)

// TestRoundCopyFails: space is given back where not all could be copied, since it may be
// full, and not where nobody is.
func TestRoundCopyFails(t *testing.T) {
	w := newWorld(t)
	w.places, w.badPlace, w.gonePlace, w.pruneEvery = []string{"full", "gone"}, "full", "gone", time.Hour
	report := do(t, w, w.vm(diskFile(t)))
	if c := report.Copies; report.Outcome != state.Warnings || len(c) != 2 || c[0].Error == "" || c[0].Prune == nil || c[1].Error == "" || c[1].Prune != nil {
		t.Errorf("%s, %+v", report.Outcome, c)
	}
	if got := strings.Join(w.pruned, ", "); got != "full" {
		t.Errorf("pruned were %s", got)
	}
}

// TestRoundCopies: the backups go to all other places, after they were made and before
// any is removed. One that cannot be reached is a warning that names it, and the next
// round catches up.
func TestRoundCopies(t *testing.T) {
	w := newWorld(t)
	w.places, w.badPlace, w.pruneEvery = []string{"nas", "cloud", "keeps all"}, "nas", time.Hour
	v := w.vm(diskFile(t))
	plan, err := w.runner().Plan(t.Context(), []round.VM{v})
	if err != nil || len(plan.Copies) != 3 || plan.Copies[0].Place != "nas" || !plan.Copies[1].Prune.Due || plan.Copies[2].Prune.Due {
		t.Errorf("the plan is %+v, %v", plan.Copies, err)
	}
	report := do(t, w, v)
	p := report.Problems()
	if report.Outcome != state.Warnings || len(p) != 1 || !strings.Contains(p[0], "copy to nas: injected fault") || !strings.Contains(p[0], "next round") {
		t.Errorf("outcome %s, %q", report.Outcome, p)
	}
	if v := report.VMs[0]; v.Outcome != state.Done || v.Backup == nil || v.Retain == nil {
		t.Errorf("the VM's own report is %+v", v)
	}
	if c := report.Copies; len(c) != 3 || c[0].Error == "" || c[0].Blobs != 7 || c[1].Copied != 1 || c[1].Place != "cloud" || c[1].Prune == nil || c[2].Prune != nil {
		t.Errorf("the copies are %+v", c)
	}
	var order []string
	for _, line := range w.log {
		_, what, _ := strings.Cut(line, " ")
		if strings.HasPrefix(what, "copy") || slices.Contains([]string{"backup", "retain", "prune", "prune of nas", "prune of cloud"}, what) {
			order = append(order, what)
		}
	}
	if got := strings.Join(order, ", "); got != "backup, copy to nas, copy to cloud, copy to keeps all, retain, prune, prune of nas, prune of cloud" {
		t.Errorf("the order was %s", got)
	}
	w.badPlace = ""
	report = do(t, w, v)
	if c := report.Copies; report.Outcome != state.Done || c[0].Copied != 2 || c[1].Copied != 1 || c[1].Present != 1 || c[1].Prune != nil || c[0].Prune != nil {
		t.Errorf("the next round: %s, %+v", report.Outcome, c)
	}
	if got := strings.Join(w.pruned, ", "); got != "nas, cloud" {
		t.Errorf("pruned were %s", got)
	}
}

// Damage at a place is a warning that names it, and so is a place that cannot be looked
// at. Nobody looks where nobody is.
func TestRoundProvesCopies(t *testing.T) {
	w := newWorld(t)
	w.places, w.gonePlace = []string{"nas", "cloud", "gone"}, "gone"
	w.copyProof = map[string]*round.ProofReport{
		"nas":   {Mode: "sample", Backups: 2, Damaged: 1, Damage: []string{"web@01234567:/var/x: lost"}, DamageTotal: 1},
		"cloud": {Mode: "quick", Backups: 2, Error: "the bucket is gone"},
		"gone":  {Mode: "quick"},
	}
	v := w.vm(diskFile(t))
	if plan, err := w.runner().Plan(t.Context(), []round.VM{v}); err != nil || !plan.Copies[0].Verify.Due {
		t.Errorf("the plan is %+v, %v", plan.Copies, err)
	}
	report := do(t, w, v)
	p := report.Problems()
	if report.Outcome != state.Warnings || len(p) != 3 || p[0] != "verify of nas: web@01234567:/var/x: lost" || p[1] != "verify of cloud: the bucket is gone" || !strings.HasPrefix(p[2], "copy to gone") {
		t.Errorf("outcome %s, problems %q", report.Outcome, p)
	}
	if c := report.Copies; c[0].Verify == nil || c[1].Verify == nil || c[2].Verify != nil || report.VMs[0].Outcome != state.Done {
		t.Errorf("the copies are %+v", c)
	}
}
