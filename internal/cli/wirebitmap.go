package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

const (
	// bitmapPrefix is in front of the name of each dirty bitmap that drydock
	// starts: behind it is the ID of the round that froze the disk, which makes
	// the name unique, and is known to the backup that was made then.
	bitmapPrefix = "drydock-"
	// bitmapGranularity is what one bit stands for, in bytes: the smallest
	// segment of an image.
	bitmapGranularity = 64 << 10
	// keptBitmaps is how many of drydock's older bitmaps stay: that of the last
	// backup, and one more in case that a night's backup failed.
	keptBitmaps = 2
	// maxDirty bounds the ranges that are remembered of one bitmap, 16 bytes each.
	maxDirty = 1 << 20
)

// bitmaps starts the dirty bitmaps of disks that are backed up as images, and
// remembers what the older ones say. That is known while the VM is off alone: as
// soon as it runs, QEMU has them.
type bitmaps struct {
	config *config.Config
	qemu   *qemuimg.Tool

	mu    sync.Mutex // guards disks
	disks map[string]*dirtyDisk
}

// dirtyDisk is what the bitmaps of a disk said when it was frozen.
type dirtyDisk struct {
	begun  error            // why no bitmap was started for the next backup
	err    error            // why nothing is known
	states map[string]error // of each bitmap: why it does not count; nil if it does
	ranges map[string][]dirtyRange
}

type dirtyRange struct{ off, length int64 }

func newBitmaps(c *config.Config, tool *qemuimg.Tool) *bitmaps {
	return &bitmaps{config: c, qemu: tool, disks: make(map[string]*dirtyDisk)}
}

// begin starts the bitmap of a round, before the disk is frozen, so that it covers
// all that comes after that. The VM is off. Nothing that fails here is more than a
// reason to read the whole disk the next time.
func (b *bitmaps) begin(ctx context.Context, v round.VM, d round.Disk, roundID string) {
	if b.wanted(v, d) {
		b.keep(v, d, &dirtyDisk{begun: b.renew(ctx, d.Path, bitmapPrefix+roundID)})
	}
}

// begun is why no bitmap was started for the next backup, or nil.
func (b *bitmaps) begun(v round.VM, d round.Disk) error { return b.of(v, d).begun }

// of returns what is known of a disk; never nil.
func (b *bitmaps) of(v round.VM, d round.Disk) *dirtyDisk {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k := b.disks[v.Name+"/"+d.Name]; k != nil {
		return k
	}
	return &dirtyDisk{err: errNotFrozen, begun: errNotFrozen}
}

// errNotFrozen is of a disk that this round did not freeze.
var errNotFrozen = errors.New("the disk was not frozen with its bitmaps")

// frozen reads the bitmaps of a disk after it was frozen, so that they have all
// that was written before that. The VM is still off.
func (b *bitmaps) frozen(ctx context.Context, v round.VM, d round.Disk) {
	if b.wanted(v, d) {
		got := &dirtyDisk{begun: b.begun(v, d)}
		got.err = b.read(ctx, b.config.VMs[v.Name].Disks[d.Name], got)
		b.keep(v, d, got)
	}
}

func (b *bitmaps) wanted(v round.VM, d round.Disk) bool {
	return b.config.VMs[v.Name].Disks[d.Name].DirtyBitmap
}

func (b *bitmaps) keep(v round.VM, d round.Disk, got *dirtyDisk) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.disks[v.Name+"/"+d.Name] = got
}

// renew adds a bitmap, unless it is there, and removes those that are too old.
func (b *bitmaps) renew(ctx context.Context, path, name string) error {
	info, err := b.qemu.Info(ctx, path)
	if err != nil || slices.Contains(info.Bitmaps, name) {
		return err
	}
	ours := slices.DeleteFunc(info.Bitmaps, func(n string) bool { return !strings.HasPrefix(n, bitmapPrefix) })
	slices.Sort(ours) // by time
	var errs []error
	for _, old := range ours[:max(0, len(ours)-keptBitmaps)] {
		errs = append(errs, b.qemu.RemoveBitmap(ctx, path, old))
	}
	return errors.Join(append(errs, b.qemu.AddBitmap(ctx, path, name, bitmapGranularity))...)
}

// read reads drydock's bitmaps of a disk.
func (b *bitmaps) read(ctx context.Context, d *config.Disk, got *dirtyDisk) error {
	f, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := imagelock.Acquire(f, imagelock.ReadShared); err != nil {
		return err
	}
	spec, closeBelow, err := diskSpec(b.config, d, f, d.Format, "")
	if err != nil {
		return err
	}
	defer closeBelow()
	r, err := sandbox.Start(ctx, sandboxOptions(b.config, d.Name), spec)
	if err != nil {
		return err
	}
	defer r.Close()
	return got.read(ctx, r.Disks()[0])
}

func (k *dirtyDisk) read(ctx context.Context, d *sandbox.Disk) error {
	all, err := d.Bitmaps(ctx)
	if err != nil {
		return err
	}
	k.states, k.ranges = make(map[string]error), make(map[string][]dirtyRange)
	for _, m := range all {
		name := string(m.Name)
		if !strings.HasPrefix(name, bitmapPrefix) {
			continue
		}
		if k.states[name] = bitmapState(m); k.states[name] != nil {
			continue
		}
		k.states[name] = d.DirtyRanges(ctx, name, func(off, length int64) error {
			if len(k.ranges[name]) == maxDirty {
				return errManyDirty
			}
			k.ranges[name] = append(k.ranges[name], dirtyRange{off, length})
			return nil
		})
	}
	return nil
}

var errManyDirty = errors.New("it has too many ranges")

// bitmapState is why a bitmap does not count, or nil.
func bitmapState(m sandbox.Bitmap) error {
	switch {
	case m.State == sandbox.BitmapInUse:
		return errors.New("it is in use, or QEMU died with it")
	case m.State != sandbox.BitmapConsistent:
		return errors.New("something wrote to the disk without recording it")
	case !m.Auto:
		return errors.New("recording was switched off")
	}
	return nil
}

// dirty yields what was written to a disk since the bitmap of that name was
// started.
func (b *bitmaps) dirty(v round.VM, d round.Disk, name string, yield func(off, length int64) error) error {
	k := b.of(v, d)
	why, known := k.states[name]
	switch {
	case why != nil:
		return fmt.Errorf("the dirty bitmap %s does not count: %w", name, why)
	case !known && k.err != nil:
		return fmt.Errorf("the dirty bitmap %s could not be read: %w", name, k.err)
	case !known:
		return fmt.Errorf("the dirty bitmap %s is missing", name)
	}
	for _, r := range k.ranges[name] {
		if err := yield(r.off, r.length); err != nil {
			return err
		}
	}
	return nil
}
