package round_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/state"
	"github.com/drydock-vm/drydock/internal/vm"
)

func diskFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, []byte("disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// do plans and runs a round, and returns its report.
func do(t *testing.T, w *world, v round.VM) *round.Report {
	t.Helper()
	report, err := try(t, w, v)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func try(t *testing.T, w *world, v round.VM) (*round.Report, error) {
	t.Helper()
	r := w.runner()
	rec, err := r.Recover(t.Context(), []round.VM{v})
	if err != nil {
		return nil, err
	}
	plan, err := r.Plan(t.Context(), []round.VM{v})
	if err != nil {
		return nil, err
	}
	return r.Run(t.Context(), plan, rec)
}

func TestRoundUpdatesAndBacksUp(t *testing.T) {
	w := newWorld(t)
	w.current = "v2"
	report := do(t, w, w.vm(diskFile(t)))
	if report.Outcome != state.Done {
		t.Fatalf("outcome %s: %v", report.Outcome, report.Problems())
	}
	if w.root != "v2" || w.install != "v2" || w.previous != "v1" {
		t.Errorf("root %s, installed %s, previous %s; want v2, v2, v1", w.root, w.install, w.previous)
	}
	if !w.running || len(w.backups) != 1 || len(w.snaps) != 0 {
		t.Errorf("running %v, backups %v, snapshots left %v", w.running, w.backups, w.snaps)
	}
	if w.backedDown {
		t.Error("the VM was down during the backup though it could be snapshotted")
	}
	var steps []string
	for _, s := range report.VMs[0].Steps {
		steps = append(steps, string(s.Step))
	}
	want := []string{"stop", "snapshot", "update", "start", "health", "backup", "sink", "sink", "release", "retain"}
	if !slices.Equal(steps, want) {
		t.Errorf("steps %v, want %v", steps, want)
	}
}

// TestRoundKeepsSinksApart: a program that fails costs its own backup only.
func TestRoundKeepsSinksApart(t *testing.T) {
	w := newWorld(t)
	w.badSink = "borg"
	report := do(t, w, w.vm(diskFile(t)))
	if report.Outcome != state.FailedRound || !w.running || len(w.backups) != 1 || !slices.Equal(w.sinks, []string{"tape"}) || len(w.snaps) != 0 {
		t.Errorf("outcome %s, running %v, backups %v, sinks %v, snapshots left %v", report.Outcome, w.running, w.backups, w.sinks, w.snaps)
	}
	got := report.VMs[0].Sinks
	if len(got) != 2 || got[0].Sink != "borg" || got[0].Error == "" || got[1].Error != "" {
		t.Errorf("report: %+v", got)
	}
}

func TestRoundRollsBackASickVersion(t *testing.T) {
	w := newWorld(t)
	w.current = "v2"
	w.sick["v2"] = true
	report := do(t, w, w.vm(diskFile(t)))
	if report.Outcome != state.Warnings {
		t.Fatalf("outcome %s: %v", report.Outcome, report.Problems())
	}
	if w.root != "v1" || w.install != "v1" || !w.running {
		t.Errorf("root %s, installed %s, running %v; want v1, v1, true", w.root, w.install, w.running)
	}
	if w.bad["v2"] == "" {
		t.Error("v2 was not marked bad")
	}
	img := report.VMs[0].Image
	if img == nil || img.RolledBack != "v2" || img.After != "v1" || !strings.Contains(img.Reason, "does not answer") {
		t.Errorf("image report %+v", img)
	}
	if len(w.backups) != 1 {
		t.Errorf("%d backups, want 1", len(w.backups))
	}
}

func TestRoundLeavesAVMThatIgnoresTheButton(t *testing.T) {
	w := newWorld(t)
	w.ignores = true
	w.current = "v2"
	report := do(t, w, w.vm(diskFile(t)))
	if report.Outcome != state.Warnings || !w.running || w.started != 0 || w.root != "v1" || w.next != "" {
		t.Errorf("outcome %s, running %v, started %d times, root %s, prepared %q", report.Outcome, w.running, w.started, w.root, w.next)
	}
	if p := report.Problems(); len(p) != 1 || !strings.Contains(p[0], "web: stop:") || !strings.Contains(p[0], "shutdown_timeout") {
		t.Errorf("problems %q", p)
	}
}

func TestRoundForcesWhereConfigured(t *testing.T) {
	w := newWorld(t)
	w.ignores = true
	v := w.vm(diskFile(t))
	v.ForceShutdown = true
	report := do(t, w, v)
	if report.Outcome != state.Done || !w.running || w.started != 1 || len(w.backups) != 1 {
		t.Errorf("outcome %s, running %v, started %d, backups %v", report.Outcome, w.running, w.started, w.backups)
	}
}

func TestRoundKeepsAVMOff(t *testing.T) {
	w := newWorld(t)
	w.running = false
	w.current = "v2"
	report := do(t, w, w.vm(diskFile(t)))
	if report.Outcome != state.Done || w.running || w.root != "v1" || len(w.backups) != 1 {
		t.Errorf("outcome %s, running %v, root %s, backups %v", report.Outcome, w.running, w.root, w.backups)
	}
}

func TestRoundWithoutSnapshotsReadsWhileDown(t *testing.T) {
	w := newWorld(t)
	w.noSnapshot = true
	report := do(t, w, w.vm(diskFile(t)))
	if report.Outcome != state.Done || !w.running || !w.backedDown || len(w.backups) != 1 {
		t.Errorf("outcome %s, running %v, down during backup %v, backups %v", report.Outcome, w.running, w.backedDown, w.backups)
	}
}

func TestRoundSkipsWhatItCannotDock(t *testing.T) {
	w := newWorld(t)
	v := w.vm(filepath.Join(t.TempDir(), "no-such-disk.raw"))
	report := do(t, w, v)
	if report.Outcome != state.Warnings || !w.running || w.started != 0 {
		t.Errorf("outcome %s, running %v, started %d", report.Outcome, w.running, w.started)
	}
	if p := report.Problems(); len(p) != 1 || !strings.Contains(p[0], "no-such-disk.raw") || !strings.Contains(p[0], "disk root") {
		t.Errorf("problems %q", p)
	}
}

// detached is a machine whose guest writes to other images than are configured.
type detached struct{ *world }

func (d detached) Attached(_ context.Context, path string) error {
	return fmt.Errorf("%s is none of its disks", path)
}

// TestRoundLeavesAMachineAloneThatHasOtherDisks: neither is a backup made of what is old,
// nor is an image put below another.
func TestRoundLeavesAMachineAloneThatHasOtherDisks(t *testing.T) {
	w := newWorld(t)
	w.current = "v2"
	v := w.vm(diskFile(t))
	v.Machine = detached{w}
	report := do(t, w, v)
	if report.Outcome != state.Warnings || !w.running || w.started != 0 || w.switched || w.root == "v2" || len(w.backups) > 0 {
		t.Errorf("outcome %s, running %v, started %d, root %s, backups %v", report.Outcome, w.running, w.started, w.root, w.backups)
	}
	if p := report.Problems(); len(p) != 1 || !strings.Contains(p[0], "none of its disks") {
		t.Errorf("problems %q", p)
	}
}

// TestRoundSurvivesEveryFault lets each call of a round fail once. Whatever
// fails, the VM runs on a root that boots, and the fault is reported.
func TestRoundSurvivesEveryFault(t *testing.T) {
	for name, prepare := range map[string]func(*world){
		"update":      func(w *world) { w.current = "v2" },
		"sick update": func(w *world) { w.current = "v2"; w.sick["v2"] = true },
		"plain":       func(*world) {},
		"no snapshot": func(w *world) { w.noSnapshot = true },
		"prune":       func(w *world) { w.pruneEvery = time.Hour },
		"copies":      func(w *world) { w.pruneEvery = time.Hour; w.places = []string{"nas", "keeps all"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := 1; ; n++ {
				w := newWorld(t)
				prepare(w)
				w.failAt = n
				report, err := try(t, w, w.vm(diskFile(t)))
				if !w.failed {
					if n < 6 {
						t.Fatalf("only %d calls were made", n-1)
					}
					return
				}
				if !w.running || w.sick[w.root] && w.switched {
					t.Fatalf("fault %d: running %v on root %s\n%s", n, w.running, w.root, strings.Join(w.log, "\n"))
				}
				if err == nil && report.Outcome == state.Done && !tolerated(w.log[n-1]) {
					t.Errorf("fault %d (%s) went unreported", n, w.log[n-1])
				}
			}
		})
	}
}

// tolerated are calls that are tried again, so that one fault does no harm.
func tolerated(call string) bool { return strings.HasSuffix(call, "start") }

// TestRecoverAfterDeathAnywhere kills the process at each call of a round. The
// next run puts things right: the VM runs, on a root that is healthy, nothing
// half-done is left, and a further round is clean.
func TestRecoverAfterDeathAnywhere(t *testing.T) {
	for name, prepare := range map[string]func(*world){
		"update":      func(w *world) { w.current = "v2" },
		"sick update": func(w *world) { w.current = "v2"; w.sick["v2"] = true },
		"plain":       func(*world) {},
		"no snapshot": func(w *world) { w.noSnapshot = true },
		"prune":       func(w *world) { w.pruneEvery = time.Hour },
		"copies":      func(w *world) { w.pruneEvery = time.Hour; w.places = []string{"nas", "keeps all"} },
		"off":         func(w *world) { w.running = false },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := 1; ; n++ {
				w := newWorld(t)
				prepare(w)
				found := w.running
				w.dieAt = n
				v := w.vm(diskFile(t))
				_, _ = try(t, w, v)
				if !w.dead {
					if n < 6 {
						t.Fatalf("only %d calls were made", n-1)
					}
					return
				}
				w.reborn()
				if _, err := w.runner().Recover(t.Context(), []round.VM{v}); err != nil {
					t.Fatalf("death %d: recover: %v", n, err)
				}
				if w.running != found || w.switched || w.sick[w.root] || w.next != "" || len(w.snaps) != 0 {
					t.Fatalf("death %d: running %v, switched %v, root %s, prepared %q, snapshots %v\n%s",
						n, w.running, w.switched, w.root, w.next, w.snaps, strings.Join(w.log, "\n"))
				}
				if again, err := w.runner().Recover(t.Context(), []round.VM{v}); again != nil || err != nil {
					t.Fatalf("death %d: a second recover found %+v, %v", n, again, err)
				}
				if report := do(t, w, v); w.running != found || w.sick[w.root] || len(w.backups) == 0 {
					t.Fatalf("death %d: the next round: %s, root %s, %v", n, report.Outcome, w.root, report.Problems())
				}
			}
		})
	}
}

func TestRunTouchesNothingWithoutARepository(t *testing.T) {
	w := newWorld(t)
	w.failAt = 1 // the check of the repository
	if _, err := try(t, w, w.vm(diskFile(t))); !errors.Is(err, errInjected) {
		t.Fatalf("error %v, want the injected one", err)
	}
	if !w.running || w.started != 0 {
		t.Error("the VM was touched")
	}
	if open, err := w.db.OpenRounds(t.Context()); err != nil || len(open) != 0 {
		t.Errorf("open rounds %v, %v", open, err)
	}
}

func TestCancelledRoundBringsTheVMUp(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	v := w.vm(diskFile(t))
	plan, err := w.runner().Plan(ctx, []round.VM{v})
	if err != nil {
		t.Fatal(err)
	}
	w.cancel = cancel
	report, err := w.runner().Run(ctx, plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !w.running || report.Outcome != state.FailedRound {
		t.Errorf("running %v, outcome %s: %v", w.running, report.Outcome, report.Problems())
	}
}

func TestBuilderIsStartedOnlyWhenDue(t *testing.T) {
	w := newWorld(t)
	v := w.vm(diskFile(t))
	v.Disks = v.Disks[1:]
	v.Builder = &round.Builder{Every: 7 * 24 * 3600e9}
	report := do(t, w, v)
	if !w.running || w.started != 1 || !strings.Contains(report.VMs[0].Build, "nothing has been built yet") {
		t.Fatalf("running %v, started %d, %q, %v", w.running, w.started, report.VMs[0].Build, report.Problems())
	}
	last, err := w.db.LastBuild(t.Context(), "web")
	if err != nil || last == nil {
		t.Fatalf("no build was recorded: %v", err)
	}
	w.harvest = &round.Harvest{BuildID: last.ID, SpecDigest: "sha256:0",
		Images: []round.HarvestImage{{Version: round.Version{Image: "web", ID: "v2"}, New: true}}}
	report = do(t, w, v)
	if w.running || w.started != 1 || report.Outcome != state.Done {
		t.Errorf("running %v, started %d, outcome %s %v", w.running, w.started, report.Outcome, report.Problems())
	}
	if got := report.VMs[0]; got.Harvest == nil || got.Left != vm.Off || !strings.Contains(got.Build, "not due") {
		t.Errorf("report %+v", got)
	}
}

// TestRecoverTakesUpAFailedRollBack lets putting the old root back fail more
// often than a round tries.
func TestRecoverTakesUpAFailedRollBack(t *testing.T) {
	w := newWorld(t)
	w.current, w.sick["v2"], w.stuck = "v2", true, true
	v := w.vm(diskFile(t))
	report := do(t, w, v)
	if report.Outcome != state.FailedRound || !w.running || w.root != "v2" {
		t.Fatalf("outcome %s, running %v, root %s: %v", report.Outcome, w.running, w.root, report.Problems())
	}
	w.stuck = false
	rec, err := w.runner().Recover(t.Context(), []round.VM{v})
	if err != nil || rec == nil || len(rec.Warnings) > 0 {
		t.Fatalf("recover: %+v, %v", rec, err)
	}
	if !w.running || w.root != "v1" || w.switched {
		t.Errorf("running %v, root %s, switched %v; want true, v1, false", w.running, w.root, w.switched)
	}
}

// A proof that fails, or that finds damage, is told and changes nothing of what
// was backed up.
func TestRoundProves(t *testing.T) {
	for name, c := range map[string]struct {
		proof   *round.ProofReport
		err     error
		want    state.Outcome
		problem string
	}{
		"not due": {nil, nil, state.Done, ""},
		"good":    {&round.ProofReport{Mode: "sample", Backups: 3}, nil, state.Done, ""},
		"damage": {
			&round.ProofReport{Mode: "sample", Backups: 3, Damaged: 1, Damage: []string{"web@01234567:/var/x: lost"}, DamageTotal: 2},
			nil, state.FailedRound, "verify: web@01234567:/var/x: lost",
		},
		"not possible": {nil, errInjected, state.Warnings, "verify: injected fault"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.proof, w.proofErr = c.proof, c.err
			if plan, err := w.runner().Plan(t.Context(), []round.VM{w.vm(diskFile(t))}); err != nil || plan.Verify.Due != (c.proof != nil) {
				t.Errorf("the plan has the proof %+v, %v", plan.Verify, err)
			}
			report := do(t, w, w.vm(diskFile(t)))
			if report.Outcome != c.want || (report.Verify == nil) != (c.proof == nil && c.err == nil) {
				t.Errorf("outcome %s, %+v", report.Outcome, report.Verify)
			}
			if v := report.VMs[0]; v.Outcome != state.Done || v.Backup == nil {
				t.Errorf("the backup's outcome is %s", v.Outcome)
			}
			if p := report.Problems(); c.problem != "" && (len(p) == 0 || p[0] != c.problem) || c.problem == "" && len(p) > 0 {
				t.Errorf("problems %q, want %q", p, c.problem)
			}
		})
	}
}
