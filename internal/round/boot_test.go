package round_test

import (
	"testing"

	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/state"
)

// A backup that does not boot fails the round, and one that cannot be tried is a
// warning. The backup stays as it is.
func TestRoundBoots(t *testing.T) {
	for name, c := range map[string]struct {
		boot    *round.BootReport
		err     error
		want    state.Outcome
		problem string
	}{
		"not due":         {nil, nil, state.Done, ""},
		"boots":           {&round.BootReport{Backup: "0123456789", Healthy: 1e9}, nil, state.Done, ""},
		"does not boot":   {&round.BootReport{Backup: "0123456789", Error: "panic"}, nil, state.FailedRound, "web: boot: backup 01234567 does not boot: panic"},
		"cannot be tried": {nil, errInjected, state.Warnings, "web: boot: injected fault"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.boot, w.bootErr = c.boot, c.err
			report := do(t, w, w.vm(diskFile(t)))
			if v := report.VMs[0]; report.Outcome != c.want || v.Outcome != c.want || v.Boot != c.boot || v.Backup == nil {
				t.Errorf("outcome %s, %+v", report.Outcome, v)
			}
			if p := report.Problems(); c.problem != "" && (len(p) != 1 || p[0] != c.problem) || c.problem == "" && len(p) > 0 {
				t.Errorf("problems %q, want %q", p, c.problem)
			}
		})
	}
}

// A VM that is held stays as it is, and so do its backups.
func TestRoundHolds(t *testing.T) {
	w := newWorld(t)
	v := w.vm(diskFile(t))
	v.Hold = "it hangs on its backup"
	report := do(t, w, v)
	got := report.VMs[0]
	if report.Outcome != state.Warnings || got.Backup != nil || got.Retain != nil || got.Downtime != 0 || !w.running {
		t.Errorf("outcome %s, %+v", report.Outcome, got)
	}
	if p := report.Problems(); len(p) != 1 || p[0] != "web: stop: skipped: it hangs on its backup" {
		t.Errorf("problems %q", p)
	}
}
