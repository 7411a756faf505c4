package round_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/state"
	"github.com/drydock-vm/drydock/internal/vm"
)

// world is a host in memory: one VM, its root disk, its snapshots and the
// image store, with a fault that is injected at a chosen call. It stands for
// the parts that the integration tests use for real.
type world struct {
	t      *testing.T
	dbPath string
	db     *state.DB

	running  bool
	root     string // the version that the root disk is
	next     string
	previous string
	switched bool
	snaps    map[string]bool
	current  string
	bad      map[string]string
	install  string

	sick       map[string]bool // root versions that never become healthy
	ignores    bool            // the guest ignores the power button
	stuck      bool            // the root disk cannot be switched back
	noSnapshot bool
	harvest    *round.Harvest
	started    int // how often the VM was started
	backups    []string
	sinks      []string
	badSink    string // the one that always fails
	backedDown bool   // the VM was down during the backup
	pruneEvery time.Duration
	prunes     int
	late       time.Duration                 // how far the clock is set forward
	noBackups  bool                          // the repository has none, whatever was made
	places     []string                      // that backups are copied to
	badPlace   string                        // the one that always fails
	gonePlace  string                        // the one that cannot be reached
	copied     map[string]int                // backups, by place
	pruned     []string                      // places
	copyProof  map[string]*round.ProofReport // by place; nil: it is not due
	proof      *round.ProofReport
	proofErr   error
	boot       *round.BootReport
	bootErr    error

	calls  int
	failAt int    // this call fails, once
	dieAt  int    // at this call the process dies: it and all later ones do nothing
	cancel func() // called at the first shutdown
	failed bool
	dead   bool
	log    []string
}

var (
	errInjected = errors.New("injected fault")
	errDead     = errors.New("the process is dead")
)

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, dbPath: filepath.Join(t.TempDir(), "state.db"),
		running: true, root: "v1", current: "v1", install: "v1",
		snaps: map[string]bool{}, bad: map[string]string{}, sick: map[string]bool{}, copied: map[string]int{},
	}
	w.open()
	t.Cleanup(func() { w.db.Close() })
	return w
}

func (w *world) open() {
	db, err := state.Open(w.t.Context(), w.dbPath)
	if err != nil {
		w.t.Fatal(err)
	}
	w.db = db
}

// reborn is the host after the process died and another one was started.
func (w *world) reborn() {
	w.db.Close()
	w.dead, w.dieAt, w.failAt = false, 0, 0
	w.open()
}

// call counts a call and says whether it happens.
func (w *world) call(format string, args ...any) error {
	if w.dead {
		return errDead
	}
	w.calls++
	w.log = append(w.log, fmt.Sprintf("%d %s", w.calls, fmt.Sprintf(format, args...)))
	switch w.calls {
	case w.failAt:
		w.failed = true
		return fmt.Errorf("%s: %w", format, errInjected)
	case w.dieAt:
		w.dead = true
		w.db.Close() // nothing is journalled any more
		return errDead
	}
	return nil
}

func (w *world) vm(path string) round.VM {
	return round.VM{
		Name: "web", Machine: w, ShutdownTimeout: time.Second, Sinks: []string{"borg", "tape"},
		Disks: []round.Disk{
			{Name: "root", Path: path, Format: "raw", Image: "web", Backup: true},
			{Name: "data", Path: path, Format: "raw", Backup: true},
		},
	}
}

func (w *world) runner() *round.Runner {
	return round.New(round.Options{
		State: w.db, Machines: w, Snapshots: w, Images: w, Builds: builds{w}, Sources: w, Backups: w, Sinks: w, Proofs: w, Boots: boots{w}, Now: w.now,
		Copies:    copies{w},
		Retention: w, PruneEvery: w.pruneEvery, RetryPause: time.Microsecond,
	})
}

// vm.Machine

func (w *world) State(context.Context) (vm.State, error) {
	if w.running {
		return vm.Running, nil
	}
	return vm.Off, nil
}

func (w *world) Start(context.Context) error {
	if err := w.call("start"); err != nil {
		return err
	}
	w.running = true
	w.started++
	return nil
}

func (w *world) Shutdown(context.Context, time.Duration) error {
	if err := w.call("shutdown"); err != nil {
		return err
	}
	if w.cancel != nil {
		w.cancel()
	}
	if w.ignores {
		return vm.ErrShutdownTimeout
	}
	w.running = false
	return nil
}

func (w *world) Kill(context.Context) error {
	if err := w.call("kill"); err != nil {
		return err
	}
	w.running = false
	return nil
}

// round.Machines

func (w *world) ConsoleMark(round.VM) int64 { return 0 }

func (w *world) Healthy(context.Context, round.VM, int64) error {
	if err := w.call("healthy"); err != nil {
		return err
	}
	if !w.running || w.sick[w.root] {
		return fmt.Errorf("the service of %s does not answer", w.root)
	}
	return nil
}

// round.Snapshots

func (w *world) Take(_ context.Context, _ round.VM, d round.Disk, name string) (round.Snapshot, error) {
	if err := w.call("snapshot"); err != nil {
		return round.Snapshot{}, err
	}
	if w.running {
		w.t.Error("a snapshot was taken of a running VM")
	}
	w.snaps[d.Name+name] = true
	return round.Snapshot{Kind: "reflink", Name: name, Path: d.Name, Format: d.Format}, nil
}

func (w *world) Release(_ context.Context, _ round.VM, s round.Snapshot) error {
	if err := w.call("release"); err != nil {
		return err
	}
	for k := range w.snaps {
		if k == "root"+s.Name || k == "data"+s.Name {
			delete(w.snaps, k)
		}
	}
	return nil
}

func (w *world) Sweep(context.Context, round.VM, round.Disk) error { return w.call("sweep") }

func (w *world) Plan(context.Context, round.VM, round.Disk) (string, string) {
	if w.noSnapshot {
		return round.KindNone, "nothing works here"
	}
	return "reflink", "XFS"
}

// round.Images

func (w *world) Target(context.Context, round.VM, round.Disk) (round.Version, string, bool, error) {
	return round.Version{Image: "web", ID: w.current}, w.install, w.current != "", nil
}

func (w *world) Prepare(_ context.Context, _ round.Disk, v round.Version) error {
	if err := w.call("prepare"); err != nil {
		return err
	}
	w.next = v.ID
	return nil
}

func (w *world) Discard(round.Disk) error {
	if err := w.call("discard"); err != nil {
		return err
	}
	w.next = ""
	return nil
}

func (w *world) Switch(round.Disk) error {
	if err := w.call("switch"); err != nil {
		return err
	}
	if w.running {
		w.t.Error("the root disk of a running VM was switched")
	}
	w.previous, w.root, w.next, w.switched = w.root, w.next, "", true
	return nil
}

func (w *world) Undo(round.Disk) error {
	if err := w.call("undo"); err != nil {
		return err
	}
	if w.stuck {
		return errInjected
	}
	if !w.switched {
		return nil
	}
	if w.running {
		w.t.Error("the root disk of a running VM was switched back")
	}
	w.root, w.previous, w.switched = w.previous, "", false
	return nil
}

func (w *world) Switched(round.Disk) (bool, error) { return w.switched, nil }

func (w *world) Commit(_ context.Context, _ round.VM, _ round.Disk, v round.Version) error {
	if err := w.call("commit"); err != nil {
		return err
	}
	w.install, w.switched = v.ID, false
	return nil
}

func (w *world) MarkBad(_ context.Context, v round.Version, reason string) error {
	if err := w.call("mark bad"); err != nil {
		return err
	}
	w.bad[v.ID] = reason
	if w.current == v.ID {
		w.current = "v1"
	}
	return nil
}

// round.Builds

type builds struct{ *world }

func (b builds) SpecDigest(context.Context, round.VM) (string, error) { return "sha256:0", nil }

func (b builds) Prepare(context.Context, round.VM, string) error { return b.call("write spec") }

func (b builds) Harvest(context.Context, round.VM) (*round.Harvest, error) {
	if err := b.call("harvest"); err != nil {
		return nil, err
	}
	return b.harvest, nil
}

// round.Sources and round.Backups

func (w *world) Open(_ round.VM, d round.Disk, s round.Snapshot) (round.Source, error) {
	if err := w.call("open"); err != nil {
		return round.Source{}, err
	}
	f, err := os.Open(os.DevNull)
	return round.Source{Disk: d, File: f, Format: "raw", Unfrozen: s.Kind == round.KindNone}, err
}

func (w *world) Prove(context.Context, func(string)) (*round.ProofReport, error) {
	return w.proof, w.proofErr
}

func (w *world) Boot(context.Context, round.VM, func(string)) (*round.BootReport, error) {
	return w.boot, w.bootErr
}

func (w *world) Due(context.Context) (round.Due, error) {
	return round.Due{Due: w.proof != nil, Reason: "sample: the proof"}, nil
}

type boots struct{ *world }

func (b boots) Due(context.Context, round.VM) (round.Due, error) {
	return round.Due{Due: b.boot != nil, Reason: "the boot"}, nil
}

func (w *world) Check(context.Context) error { return w.call("check repository") }

func (w *world) Backup(_ context.Context, v round.VM, _ string, _ []round.Source, _ func(string)) (*round.BackupReport, error) {
	if err := w.call("backup"); err != nil {
		return nil, err
	}
	w.backedDown = !w.running
	w.backups = append(w.backups, v.Name)
	return &round.BackupReport{ID: "0123456789"}, nil
}

func (w *world) Sink(_ context.Context, _ round.VM, name string, _ []round.Source) (*round.SinkReport, error) {
	if err := w.call("sink %s", name); err != nil {
		return nil, err
	}
	if name == w.badSink {
		return nil, errInjected
	}
	w.sinks = append(w.sinks, name)
	return &round.SinkReport{Sink: name}, nil
}

// round.Retention

func (w *world) now() time.Time { return time.Now().Add(w.late) }

func (w *world) Retain(_ context.Context, vms []round.VM) ([]*round.RetainReport, error) {
	if err := w.call("retain"); err != nil {
		return nil, err
	}
	var out []*round.RetainReport
	for range vms {
		r := &round.RetainReport{Policy: "keep-last 1", Kept: 1, Removed: []string{"aa", "bb"}}
		if !w.noBackups {
			r.Newest = time.Now()
		}
		out = append(out, r)
	}
	return out, nil
}

func (w *world) Prune(context.Context) (*round.PruneReport, error) {
	if err := w.call("prune"); err != nil {
		return nil, err
	}
	w.prunes++
	return &round.PruneReport{Before: 3 << 20, After: 1 << 20}, nil
}

// round.Copies

type copies struct{ *world }

func (c copies) Places() []string { return c.places }

// Copy brings all that there are.
func (c copies) Copy(_ context.Context, place string) (*round.CopyReport, error) {
	if err := c.call("copy to %s", place); err != nil {
		return nil, err
	}
	if place == c.gonePlace {
		return nil, errInjected
	}
	if place == c.badPlace {
		return &round.CopyReport{Blobs: 7}, errInjected
	}
	rep := &round.CopyReport{Copied: len(c.backups) - c.copied[place], Present: c.copied[place]}
	c.copied[place] = len(c.backups)
	return rep, nil
}

func (c copies) Prunes(place string) bool { return place != "keeps all" }

func (c copies) Proofs(place string) (round.Proofs, error) { return copyProofs{c.world, place}, nil }

type copyProofs struct {
	*world
	place string
}

func (p copyProofs) Prove(context.Context, func(string)) (*round.ProofReport, error) {
	if err := p.call("verify of %s", p.place); err != nil {
		return nil, err
	}
	return p.copyProof[p.place], nil
}

func (p copyProofs) Due(context.Context) (round.Due, error) {
	return round.Due{Due: p.copyProof[p.place] != nil}, nil
}

func (c copies) Prune(_ context.Context, place string) (*round.PruneReport, error) {
	if err := c.call("prune of %s", place); err != nil {
		return nil, err
	}
	c.pruned = append(c.pruned, place)
	return &round.PruneReport{Before: 2 << 20}, nil
}
