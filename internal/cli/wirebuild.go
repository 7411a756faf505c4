package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/drydock-vm/drydock/internal/build"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/harvest"
	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

// builds implements [round.Builds].
type builds struct{ h *host }

func (b *builds) config(v round.VM) *config.Builder { return b.h.config.VMs[v.Name].Builder }

func (b *builds) SpecDigest(_ context.Context, v round.VM) (string, error) {
	return build.SpecDigest(b.config(v).Spec)
}

func (b *builds) Prepare(ctx context.Context, v round.VM, buildID string) error {
	c := b.config(v)
	_, err := build.WriteSpec(ctx, c.SpecDisk, c.Spec, buildID)
	return err
}

// Harvest reads the builder's output disk in a confined worker, with QEMU's
// lock held on it.
func (b *builds) Harvest(ctx context.Context, v round.VM) (*round.Harvest, error) {
	c := b.config(v)
	d := b.h.config.VMs[v.Name].Disks[c.Output]
	f, err := os.Open(d.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := imagelock.Acquire(f, imagelock.ReadShared); err != nil {
		return nil, err
	}
	spec, closeBelow, err := diskSpec(b.h.config, d, f, d.Format, "")
	if err != nil {
		return nil, err
	}
	r, err := sandbox.Start(ctx, sandboxOptions(b.h.config, v.Name+"/"+d.Name), spec)
	closeBelow()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	fsys, err := diskFilesystem(ctx, r, d)
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", d.Name, err)
	}
	got, err := harvest.Harvest(ctx, fsys, harvest.Options{
		Images: c.Images, Store: b.h.images,
		Seen: func(id string) bool { return b.seen(ctx, v, id) },
	})
	if errors.Is(err, harvest.ErrNothing) {
		return nil, nil
	}
	if got == nil {
		return nil, err
	}
	return harvested(got), err
}

// seen says whether the images of a build were imported before. When that
// cannot be told they are looked at again, which does no harm.
func (b *builds) seen(ctx context.Context, v round.VM, id string) bool {
	last, err := b.h.db.LastHarvest(ctx, v.Name)
	return err == nil && last != nil && last.ID == id
}

func harvested(r *harvest.Result) *round.Harvest {
	out := &round.Harvest{BuildID: r.BuildID, SpecDigest: r.SpecDigest}
	for _, i := range r.Images {
		out.Images = append(out.Images, round.HarvestImage{
			Version: round.Version{Image: i.Image, ID: i.ID, Digest: i.SHA256}, New: i.New, Size: i.Size,
		})
	}
	return out
}
