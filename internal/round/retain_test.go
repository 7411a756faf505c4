package round_test

import (
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/state"
)

// A prune comes with the first round, and then when the last is old enough,
// whatever the weekday. One that failed is tried again in the next round.
func TestPruneWhenDue(t *testing.T) {
	week := 7 * 24 * time.Hour
	rehearsal := newWorld(t)
	rehearsal.pruneEvery = week
	do(t, rehearsal, rehearsal.vm(diskFile(t)))

	w := newWorld(t)
	w.pruneEvery = week
	v := w.vm(diskFile(t))
	w.failAt = rehearsal.calls // the prune is the last call of a round
	report := do(t, w, v)
	if !w.failed || !strings.HasSuffix(w.log[len(w.log)-1], " prune") {
		t.Fatalf("the fault did not hit the prune:\n%s", strings.Join(w.log, "\n"))
	}
	if report.Outcome != state.Warnings || report.VMs[0].Outcome != state.Done || report.VMs[0].Backup == nil {
		t.Errorf("a prune that failed: outcome %s, VM %+v", report.Outcome, report.VMs[0])
	}
	for i, c := range []struct {
		late  time.Duration
		prune bool
	}{
		{0, true}, {24 * time.Hour, false}, {6 * 24 * time.Hour, false},
		{7*24*time.Hour - 10*time.Minute, true}, // the timer was late last week
		{8 * 24 * time.Hour, false},
		{-time.Hour, true}, // the clock was set back
		{30 * 24 * time.Hour, true},
	} {
		w.late = c.late
		before := w.prunes
		report := do(t, w, v)
		if got := w.prunes > before; got != c.prune || got != (report.Prune != nil) {
			t.Errorf("round %d, %s later: pruned %v, want %v; %v", i, c.late, got, c.prune, report.Problems())
		}
	}
	w.pruneEvery, w.late = 0, 1000*24*time.Hour
	if report := do(t, w, v); report.Prune != nil {
		t.Error("pruned though it is never to be")
	}
}

func TestMissingBackupIsAWarning(t *testing.T) {
	w := newWorld(t)
	v := w.vm(diskFile(t))
	v.MaxAge = 36 * time.Hour
	if report := do(t, w, v); report.Outcome != state.Done {
		t.Errorf("a fresh backup: %v", report.Problems())
	}
	w.noBackups = true
	report := do(t, w, v)
	if p := report.Problems(); report.Outcome != state.Warnings || len(p) != 1 || !strings.Contains(p[0], "web: backup: a backup is missing") {
		t.Errorf("no backup: %s, %q", report.Outcome, p)
	}
}

func TestLate(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		newest time.Time
		maxAge time.Duration
		want   string
	}{
		{now.Add(-time.Hour), 2 * time.Hour, ""},
		{now.Add(-3 * time.Hour), 2 * time.Hour, "3 hours old"},
		{now.Add(-3 * time.Hour), 0, ""},
		{time.Time{}, 0, ""},
		{time.Time{}, time.Hour, "there is none"},
		{now.Add(time.Hour), time.Minute, ""},
	} {
		if got := round.Late(now, c.newest, c.maxAge); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("newest %s ago, at most %s: %q, want %q", now.Sub(c.newest), c.maxAge, got, c.want)
		}
	}
}
