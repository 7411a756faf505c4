package retain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// The reasons to keep a backup that come from no count of the policy.
const (
	becauseNoPolicy = "no policy"
	becausePinned   = "pinned"
	becauseFuture   = "from the future"
	becauseLastGood = "last good backup"
	becauseHeld     = "its VM hangs on a backup"
)

// skew is how far the clocks of hosts that back up one VM may differ, before a
// backup counts as one from the future.
const skew = 5 * time.Minute

// VM is a virtual machine and what is kept of its backups.
type VM struct {
	Name   string
	Policy Policy
	Held   bool // its disks lie on a backup: all are kept
}

// Decision is what becomes of one backup.
type Decision struct {
	Snapshot *repository.Snapshot
	Keep     []string // the reasons; without any it goes
	Future   bool
	Good     bool // the repository has its tree
}

// Protected says why nobody should remove the backup lightly: "pinned", or "last
// good backup"; "" is no reason.
func (d *Decision) Protected() string {
	for _, r := range d.Keep {
		if r == becausePinned || r == becauseLastGood {
			return r
		}
	}
	return ""
}

// Plan is what becomes of the backups of one VM.
type Plan struct {
	VM      VM
	Backups []Decision // newest first
}

// Removals returns the backups that go, oldest first.
func (p *Plan) Removals() []*repository.Snapshot {
	var out []*repository.Snapshot
	for _, d := range slices.Backward(p.Backups) {
		if len(d.Keep) == 0 {
			out = append(out, d.Snapshot)
		}
	}
	return out
}

// Newest returns the newest good backup that is not from the future, or nil.
func (p *Plan) Newest() *repository.Snapshot {
	for _, d := range p.Backups {
		if d.Good && !d.Future {
			return d.Snapshot
		}
	}
	return nil
}

// Futures returns the backups that are from the future.
func (p *Plan) Futures() []*repository.Snapshot {
	var out []*repository.Snapshot
	for _, d := range p.Backups {
		if d.Future {
			out = append(out, d.Snapshot)
		}
	}
	return out
}

// Make returns the plans for the VMs, in their order. Snapshots that cannot be
// read are left out, and kept: the error names them, and the plans are good for
// the others.
func Make(ctx context.Context, repo *repository.Repository, vms []VM, now time.Time) ([]*Plan, error) {
	all, err := repo.Snapshots(ctx)
	if err != nil {
		err = fmt.Errorf("some backups are kept because they cannot be read: %w", err)
	}
	err = errors.Join(err, repo.LoadIndex(ctx)) // a tree that no index names makes a backup no good one
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	good := func(s *repository.Snapshot) bool { return repo.HasBlob(repository.TreeBlob, s.Tree) }
	byVM := make(map[string][]*repository.Snapshot)
	for _, s := range all {
		if backup.IsOurs(s) {
			byVM[s.Hostname] = append(byVM[s.Hostname], s)
		}
	}
	plans := make([]*Plan, len(vms))
	for i, vm := range vms {
		plans[i] = decide(vm, byVM[vm.Name], good, now)
	}
	return plans, err
}

// decide plans for the snapshots of one VM.
func decide(vm VM, all []*repository.Snapshot, good func(*repository.Snapshot) bool, now time.Time) *Plan {
	p := &Plan{VM: vm}
	groups := make(map[string][]*repository.Snapshot)
	for _, s := range all {
		if s.Time.After(now.Add(skew)) {
			p.Backups = append(p.Backups, Decision{Snapshot: s, Keep: []string{becauseFuture}, Future: true, Good: good(s)})
			continue
		}
		key := groupKey(s)
		groups[key] = append(groups[key], s)
	}
	for _, group := range groups {
		p.Backups = append(p.Backups, decideGroup(vm.Policy, group, good)...)
	}
	for i := range p.Backups {
		if d := &p.Backups[i]; vm.Held {
			d.Keep = append(d.Keep, becauseHeld)
		}
	}
	slices.SortFunc(p.Backups, func(a, b Decision) int { return newerFirst(a.Snapshot, b.Snapshot) })
	return p
}

// groupKey is the same for snapshots of the same paths. No path has a NUL in it.
func groupKey(s *repository.Snapshot) string {
	return strings.Join(slices.Sorted(slices.Values(s.Paths)), "\x00")
}

func decideGroup(policy Policy, group []*repository.Snapshot, good func(*repository.Snapshot) bool) []Decision {
	slices.SortFunc(group, newerFirst)
	reasons := policy.apply(group)
	out := make([]Decision, len(group))
	lastGood := true // as long as none has been seen
	for i, s := range group {
		d := Decision{Snapshot: s, Keep: reasons[i], Good: good(s)}
		if policy.Empty() {
			d.Keep = append(d.Keep, becauseNoPolicy)
		}
		if backup.IsPinned(s) {
			d.Keep = append(d.Keep, becausePinned)
		}
		if d.Good && lastGood {
			d.Keep = append(d.Keep, becauseLastGood)
			lastGood = false
		}
		out[i] = d
	}
	if lastGood { // none is good, and somebody may yet repair the newest
		out[0].Keep = append(out[0].Keep, becauseLastGood)
	}
	return out
}

// Result is what Apply did for one VM.
type Result struct {
	*Plan
	Removed []*repository.Snapshot // oldest first
}

// Apply plans under an exclusive lock and carries the plans out. An error that
// comes with results leaves them good for what was done: it names what could not
// be read or removed. A repository that others work on for longer than patience is
// [repository.ErrLocked].
func Apply(ctx context.Context, repo *repository.Repository, vms []VM, now time.Time, patience time.Duration) (results []*Result, err error) {
	err = Exclusively(ctx, repo, patience, func(ctx context.Context) error {
		var err error
		results, err = apply(ctx, repo, vms, now)
		return err
	})
	return results, err
}

// Exclusively calls act under an exclusive lock, with the index loaded. It waits
// for others for as long as patience says.
func Exclusively(ctx context.Context, repo *repository.Repository, patience time.Duration, act func(context.Context) error) (err error) {
	lock, err := repo.LockPatiently(ctx, true, patience)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock(ctx)) }()
	if err := repo.LoadIndex(lock.Context()); err != nil {
		return err
	}
	return act(lock.Context())
}

func apply(ctx context.Context, repo *repository.Repository, vms []VM, now time.Time) ([]*Result, error) {
	plans, err := Make(ctx, repo, vms, now)
	if plans == nil {
		return nil, err
	}
	results := make([]*Result, len(plans))
	var failed error // what keeps one snapshot keeps the others: an append-only server does
	for i, p := range plans {
		results[i] = &Result{Plan: p}
		if failed == nil {
			results[i].Removed, failed = Remove(ctx, repo, p.Removals())
		}
	}
	return results, errors.Join(err, failed)
}

// Remove removes snapshots one by one, under the caller's exclusive lock, and
// returns those that are gone. It stops at the first that cannot be removed. One
// that somebody else removed is gone too.
func Remove(ctx context.Context, repo *repository.Repository, snapshots []*repository.Snapshot) (gone []*repository.Snapshot, err error) {
	for _, s := range snapshots {
		if ctx.Err() != nil {
			return gone, context.Cause(ctx)
		}
		if err := repo.RemoveSnapshot(ctx, s.ID); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return gone, fmt.Errorf("%w (%d of %d were removed; the others are whole)", err, len(gone), len(snapshots))
		}
		gone = append(gone, s)
	}
	return gone, nil
}
