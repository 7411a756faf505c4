// Package backup stores the files of a guest as one snapshot of a repository.
//
// The snapshot's tree is the guest's tree as the guest sees it: the tree of the
// root disk, with the trees of the other disks put in where the guest mounts
// them. It keeps names as bytes, type, mode, owner, times of change to the
// nanosecond, extended attributes with ACLs and capabilities, hardlinks, device
// numbers, content, holes (see docs/format/attributes.md), and those of chattr(1)'s
// flags that the readers know. It does not keep times of access, which would make
// every tree new, and times of birth, which nothing can set. What is preallocated
// and not written is a hole.
//
// A file whose size, mtime, ctime, inode and disk are those of the parent
// snapshot is not opened. What guests write is hostile, and a damaged file costs
// that file: it is left out, and reported.
//
//	report, err := backup.Run(ctx, repo, sources, backup.Options{VM: "web", Time: now})
//
// Nothing refers to what was stored until all of it is durable. A run that fails
// or is called off leaves no snapshot, and no lock; what it stored is used by the
// next one.
package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/pattern"
	"github.com/drydock-vm/drydock/internal/repository"
)

// Source is one disk of the guest.
type Source struct {
	Disk  string // its name
	Mount string // where the guest mounts it: "/", "/var"; absolute and clean
	FS    disk.Filesystem

	// DeviceID tells the disk's inode numbers from those of other disks. It is
	// not 0, and the same in each backup.
	DeviceID uint64

	// Identity changes when the disk is replaced by another, such as the next
	// version of an image. Images are built to be reproducible: a changed file
	// can have the inode and the times of the one before. A disk whose
	// identity, or filesystem's UUID, is not that of the parent snapshot is
	// read in whole.
	Identity string

	// Include limits the backup to what it matches and what is below that; an
	// empty list is no limit. Exclude leaves out what it matches, and wins.
	// Paths are those of the disk's own filesystem.
	Include, Exclude *pattern.List
	// ExcludeCaches leaves out what is in folders that have a CACHEDIR.TAG
	// (https://bford.info/cachedir/), but for the tag.
	ExcludeCaches bool
	// ExcludeNoDump leaves out what has chattr(1)'s flag "d".
	ExcludeNoDump bool
	// ExcludeLargerThan leaves out files of more bytes; 0 is no limit.
	ExcludeLargerThan int64
	// SkipSnapshots leaves out the snapshots of btrfs that [Superseded] names.
	SkipSnapshots bool
	// Mounted are the IDs of the subvolumes that the guest mounts somewhere, as far as
	// that is known.
	Mounted []uint64
}

// Options are the choices of one backup.
type Options struct {
	VM    string    // becomes the snapshot's host name
	Round string    // ID of the round; may be empty
	Time  time.Time // of the snapshot: when the guest's disks were frozen

	// Parent is the snapshot to compare with; nil is the newest of this VM.
	Parent *repository.Snapshot
	// Objects returns further files for the snapshot's tree, if it is not nil. It
	// is called under the lock, with the parent if there is one; what it stores
	// is flushed with the rest.
	Objects func(ctx context.Context, parent *repository.Snapshot) ([]Object, error)
	// MaxEntries and MaxBytes bound the names and the bytes of files, holes among
	// them, of one backup; 0 is [DefaultMaxEntries] and [DefaultMaxBytes]. What is
	// beyond is damage, and not backed up: on a disk, many folders can have the same
	// blocks, and many files the same extents, without end.
	MaxEntries, MaxBytes int64
	// Program is what made the backup: "drydock 1.0".
	Program string
	// Progress is called now and then, from one goroutine, if it is not nil.
	Progress func(Progress)
	// Now is the clock that durations are measured with; nil means time.Now.
	Now func() time.Time
}

// The defaults of [Options]: what no VM has.
const (
	DefaultMaxEntries = 1 << 27 // twice as many inodes as ext4 gives to 1 TiB
	DefaultMaxBytes   = 1 << 50
)

// Object is a file of a snapshot that no filesystem of the guest has: the image of
// a whole disk. What the guest has at its path is left out.
type Object struct {
	Path string // absolute and clean
	Node repository.Node
	Tags []string // for the snapshot

	// Change is how it compares with what the parent has at the path, if Told says that
	// this is told: else the parent is looked at, which takes memory where it has a
	// large image.
	Change Change
	Told   bool
}

// Progress is how far a backup is.
type Progress struct {
	Files, Dirs int64
	Bytes       int64  // of files that are done, read or not
	Path        []byte // what is being looked at; guest bytes, valid during the call
}

// errNoDisk is of a backup of nothing.
var errNoDisk = errors.New("it has no disk to back up")

// ErrNoRoot is of a disk of which not even the root directory can be read.
var ErrNoRoot = errors.New("its root directory cannot be read")

// Run stores the sources as one snapshot. It takes the repository's lock, and
// loads the index.
//
// When files of the guest could not be read the report says so, and the error is
// nil. An error means that there is no snapshot.
func Run(ctx context.Context, repo *repository.Repository, sources []Source, opts Options) (*Report, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	started := opts.Now()
	if len(sources) == 0 && opts.Objects == nil {
		return nil, fmt.Errorf("backup of %s: %w", opts.VM, errNoDisk)
	}
	root, err := plan(sources)
	if err != nil {
		return nil, fmt.Errorf("backup of %s: %w", opts.VM, err)
	}
	lock, err := repo.Lock(ctx, false)
	if err != nil {
		return nil, fmt.Errorf("backup of %s: %w", opts.VM, err)
	}
	report, err := run(lock.Context(), repo, root, sources, opts)
	if unlockErr := lock.Unlock(ctx); unlockErr != nil && err == nil {
		report.warn(unlockErr)
	}
	if err != nil {
		return nil, fmt.Errorf("backup of %s: %w", opts.VM, err)
	}
	report.Duration = opts.Now().Sub(started)
	return report, nil
}

// objects has the further files stored, and puts them into the plan.
func (o *Options) objects(ctx context.Context, root *mount, parent *repository.Snapshot) ([]Object, error) {
	if o.Objects == nil {
		return nil, nil
	}
	list, err := o.Objects(ctx, parent)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if err := root.put(&list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func run(ctx context.Context, repo *repository.Repository, root *mount, sources []Source, opts Options) (*Report, error) {
	report := &Report{started: opts.Now(), before: repo.Added()}
	if err := repo.LoadIndex(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		report.warn(err) // what the index does not say is stored again
	}
	parent := opts.Parent
	if parent == nil {
		all, err := Find(ctx, repo, opts.VM)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		// Backups that cannot be read, of whatever VM, are for the retention of a round to
		// name: once, and not with each VM.
		if err != nil && !repository.IsDamage(err) {
			report.warn(err)
		}
		if len(all) > 0 {
			parent = all[len(all)-1]
		}
	}
	objects, err := opts.objects(ctx, root, parent)
	if err != nil {
		return nil, err
	}
	tree, err := walk(ctx, repo, root, parent, opts, report)
	if err != nil {
		return nil, err
	}
	if err := repo.Flush(ctx); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx) // a lost lock may mean that what we refer to was pruned
	}
	report.ended, report.added = opts.Now(), repo.Added().Since(report.before)
	s := newSnapshot(tree, parent, sources, opts, report)
	for _, o := range objects {
		s.Tags = append(s.Tags, o.Tags...)
	}
	if report.ID, err = repo.SaveSnapshot(ctx, s); err != nil {
		return nil, err
	}
	report.Tree = tree
	report.Parent = s.Parent
	return report, nil
}
