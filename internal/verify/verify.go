// Package verify proves that backups can be read back, before anybody needs them.
//
//	report, err := verify.Run(ctx, repo, verify.Options{Mode: verify.Sample, Percent: 4, Now: now})
//	if !report.Good() { … }
//
// Quick reads the structure: every snapshot, every folder, that the index has each
// blob that a folder names, and that each pack is there, with a header that says
// what the index says. Sample reads a share of the packs as well, another one each
// day; Full reads all of them: each pack's hash, and that each blob decrypts,
// decompresses, and has the hash that it is named by.
//
// # What it promises
//
// What restic check finds, with --read-data for Full, Run finds. What is damaged is
// named by backup and path in the guest, and a backup that is called good has no
// lost blob among those that were looked at. A blob of which another pack holds a
// good copy is not lost. Nothing in the repository changes but for a shared lock,
// and for parity where the repository has some: packs that were read and are good
// get theirs. With Repair, packs that are damaged are made again from it, and what
// that cannot undo is stored anew from Source, which may be another repository.
//
// The repository's storage is not trusted: a folder that a million others refer to
// is read once, and memory grows with the number of different folders and of lost
// blobs, not with paths.
package verify

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/drydock-vm/drydock/internal/repository"
)

// Mode is how much is read.
type Mode string

// The modes.
const (
	Quick  Mode = "quick"
	Sample Mode = "sample"
	Full   Mode = "full"
)

// Options are the choices of one run.
type Options struct {
	Mode Mode
	// Percent is the share of the content that Sample reads in a day, from 1 to
	// 100.
	Percent int
	// Now is the day whose share Sample reads.
	Now time.Time
	// Since is when the last sample was read: the shares of the days since then
	// are read too, so that a missed night leaves no gap. Zero means none.
	Since time.Time
	// Wanted says which snapshots are looked at, and nil means all. With some
	// left out, only packs that the others need are read.
	Wanted func(*repository.Snapshot) bool
	// Repair makes damaged packs again where their parity allows it, stores anew what
	// Source has of the rest, and makes index files that cannot be read again.
	Repair bool
	// Source is asked for blobs that the repository has lost. An error that is damage,
	// or that says that it has none, is no failure. nil has nothing.
	Source func(context.Context, repository.Blob) ([]byte, error)
	// Patience is how long Repair waits for others that work on the repository, before
	// it replaces files of it.
	Patience time.Duration
	// Hint is the command that does so, for people.
	Hint string
	// Progress, unless it is nil, is called often, from one goroutine at a time.
	Progress func(Progress)
}

// Progress is how far a run has come.
type Progress struct {
	Folders    int
	Packs, All int // checked, and to be checked
	Bytes      int64
}

// checker is one run.
type checker struct {
	repo   *repository.Repository
	opts   Options
	report *Report
	wanted []*repository.Snapshot
	lost   lostBlobs
	hit    atomic.Bool            // a file is damaged by what its folder says
	trees  *semaphore.Weighted    // of maxTrees
	needMu sync.Mutex             // guards what is in needed while folders are read
	needed map[repository.ID]bool // packs; nil means all
	broken broken                 // what a repair may bring back
	done   Progress
	mendMu sync.Mutex // held during a repair, which takes several packs' memory; guards report.Repaired
}

// Run verifies the backups of a repository, and loads its index. It holds a shared
// lock meanwhile. Damage is in the report; an error means that not everything could
// be looked at, for instance since the storage does not answer, and the report says
// what was found until then.
func Run(ctx context.Context, repo *repository.Repository, opts Options) (*Report, error) {
	if opts.Mode == Sample && (opts.Percent < 1 || opts.Percent > 100) {
		return nil, fmt.Errorf("verify: a sample of %d %% is not from 1 to 100", opts.Percent)
	}
	c := &checker{repo: repo, opts: opts, report: &Report{Mode: opts.Mode, Backups: []*Backup{}}, lost: newLostBlobs(), broken: newBroken(), trees: semaphore.NewWeighted(maxTrees)}
	if c.opts.Progress == nil {
		c.opts.Progress = func(Progress) {}
	}
	start := time.Now()
	err := c.reindex(ctx)
	if err == nil {
		err = c.locked(ctx, false, 0, c.look)
	}
	if err == nil && c.repairs() {
		err = c.locked(ctx, true, c.opts.Patience, c.heal)
	}
	c.report.Duration = time.Since(start)
	for _, damage := range c.broken.sorted() { // what is so still
		c.report.damage(damage)
	}
	if err != nil {
		return c.report, fmt.Errorf("verify: %w", err)
	}
	return c.report, nil
}

// locked calls act under a lock.
func (c *checker) locked(ctx context.Context, exclusive bool, patience time.Duration, act func(context.Context) error) (err error) {
	lock, err := c.repo.LockPatiently(ctx, exclusive, patience)
	if err != nil {
		return err
	}
	defer func() {
		if uerr := lock.Unlock(context.WithoutCancel(ctx)); err == nil {
			err = uerr
		}
	}()
	err = act(lock.Context())
	if cause := context.Cause(lock.Context()); err != nil && cause != nil {
		err = cause // the lock was lost, or somebody gave up
	}
	return err
}

// look finds what is damaged, and names it unless a repair comes first.
func (c *checker) look(ctx context.Context) error {
	var err error
	if c.wanted, err = c.snapshots(ctx); err != nil {
		return err
	}
	if err := c.damage(c.repo.LoadIndex(ctx)); err != nil {
		return err
	}
	if err := c.structure(ctx, c.wanted); err != nil {
		return err
	}
	if err := c.packs(ctx); err != nil || c.repairs() {
		return err
	}
	return c.end(ctx)
}

// end names what is damaged.
func (c *checker) end(ctx context.Context) error {
	if c.needed == nil && c.report.DamageTotal == 0 && len(c.broken.packs) == 0 { // no pack is missed
		if _, err := c.repo.RemoveParity(ctx); err != nil {
			return err
		}
	}
	return c.name(ctx, c.wanted)
}

// snapshots returns those that are wanted. One that cannot be read is damage: it
// may be anybody's.
func (c *checker) snapshots(ctx context.Context) ([]*repository.Snapshot, error) {
	all, err := c.repo.Snapshots(ctx)
	if err := c.damage(err); err != nil {
		return nil, err
	}
	var wanted []*repository.Snapshot
	for _, s := range all {
		if c.opts.Wanted == nil || c.opts.Wanted(s) {
			wanted = append(wanted, s)
		} else {
			c.needed = map[repository.ID]bool{}
		}
	}
	return wanted, nil
}

// damage takes the errors that are damage, several of them perhaps, into the
// report, and returns the others.
func (c *checker) damage(err error) error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok { // as errors.Join makes it
		var others []error
		for _, e := range joined.Unwrap() {
			others = append(others, c.damage(e))
		}
		return errors.Join(others...)
	}
	if !repository.IsDamage(err) {
		return err
	}
	c.report.damage(err)
	return nil
}
