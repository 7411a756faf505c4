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
	err    error            // why nothing is known
	states map[string]error // of each bitmap: why it does not count; nil if it does
	ranges map[string][]dirtyRange
}

type dirtyRange struct{ off, length int64 }

func newBitmaps(c *config.Config, tool *qemuimg.Tool) *bitmaps {
	return &bitmaps{config: c, qemu: tool, disks: make(map[string]*dirtyDisk)}
}

// begin reads the bitmaps of a disk, and starts the one of a round, before the
// disk is frozen: so it covers all that comes after that. The VM is off. Nothing
// that fails here is more than a reason to read the whole disk.
func (b *bitmaps) begin(ctx context.Context, v round.VM, d round.Disk, roundID string) {
	c := b.config.VMs[v.Name].Disks[d.Name]
	if !c.DirtyBitmap {
		return
	}
	got := &dirtyDisk{}
	got.err = b.renew(ctx, c, got, bitmapPrefix+roundID)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.disks[v.Name+"/"+d.Name] = got
}

func (b *bitmaps) renew(ctx context.Context, d *config.Disk, got *dirtyDisk, name string) error {
	list, err := b.read(ctx, d, got)
	if err != nil {
		return err
	}
	if slices.Contains(list, name) {
		return nil
	}
	var errs []error
	slices.Sort(list) // by time
	for i, old := range list {
		if got.states[old] != nil || i < len(list)-keptBitmaps {
			errs = append(errs, b.qemu.RemoveBitmap(ctx, d.Path, old))
		}
	}
	// Without a new one, the next backup reads the whole disk and says why.
	errs = append(errs, b.qemu.AddBitmap(ctx, d.Path, name, bitmapGranularity))
	return errors.Join(errs...)
}

// read reads drydock's bitmaps of a disk, and returns their names.
func (b *bitmaps) read(ctx context.Context, d *config.Disk, got *dirtyDisk) ([]string, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := imagelock.Acquire(f, imagelock.ReadShared); err != nil {
		return nil, err
	}
	spec, closeBelow, err := diskSpec(b.config, d, f, d.Format, "")
	if err != nil {
		return nil, err
	}
	defer closeBelow()
	r, err := sandbox.Start(ctx, sandboxOptions(b.config, d.Name), spec)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return got.read(ctx, r.Disks()[0])
}

func (k *dirtyDisk) read(ctx context.Context, d *sandbox.Disk) ([]string, error) {
	all, err := d.Bitmaps(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	k.states, k.ranges = make(map[string]error), make(map[string][]dirtyRange)
	for _, m := range all {
		name := string(m.Name)
		if !strings.HasPrefix(name, bitmapPrefix) {
			continue
		}
		names = append(names, name)
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
	return names, nil
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
	b.mu.Lock()
	k := b.disks[v.Name+"/"+d.Name]
	b.mu.Unlock()
	if k == nil {
		return errors.New("dirty bitmaps are not switched on (dirty_bitmap)")
	}
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
