package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/image"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/sandbox"
	"github.com/drydock-vm/drydock/internal/vm"
)

// described is the definition of a VM on its way into a backup.
type described struct {
	repo       *repository.Repository
	definition definition.Definition
	files      []definition.HostFile
	config     []byte
	written    time.Time // of the configuration
	// known are those of definition.Missing that are no news: the configuration
	// makes them so.
	known []string
}

// describe makes the definition of a VM. What cannot be read is missing in it, and
// keeps no backup from being made.
func (b *backups) describe(ctx context.Context, v round.VM, disks []round.Source, r *sandbox.Reader) (*described, error) {
	c := b.h.config.VMs[v.Name]
	out := &described{repo: b.repo, definition: definition.Definition{VM: v.Name, Driver: c.Driver, Unit: c.Unit}}
	d := &out.definition
	var err error
	if out.config, err = b.h.config.ShowVM(v.Name); err != nil {
		return nil, err
	}
	if info, err := os.Stat(b.h.app.configPath); err == nil {
		out.written = info.ModTime().UTC()
	}
	if machine, ok := v.Machine.(vm.Defined); ok {
		told, err := machine.Definition(ctx)
		if err != nil {
			d.Missing = append(d.Missing, err.Error())
		}
		d.Command = told.Command
		for i, path := range told.Files {
			role := definition.RoleDropIn
			switch {
			case c.Driver == config.DriverLibvirt:
				role = definition.RoleDomain
			case i == 0:
				role = definition.RoleUnit
			}
			out.files = append(out.files, definition.HostFile{Path: path, Role: role})
		}
	}
	for _, f := range definition.CommandFiles(d.Command) {
		if !slices.ContainsFunc(c.SortedDisks(), func(k *config.Disk) bool { return k.Path == f.Path }) {
			out.files = append(out.files, f)
		}
	}
	if c.Builder != nil {
		out.specification(c.Builder)
	}
	for _, k := range c.SortedDisks() {
		d.Disks = append(d.Disks, b.describeDisk(v, k, disks, r, d))
	}
	return out, nil
}

// specification adds what a builder builds from, and the disk that it reads that from,
// without which its QEMU does not start.
func (d *described) specification(b *config.Builder) {
	if _, err := os.Stat(b.SpecDisk); !errors.Is(err, fs.ErrNotExist) { // the first build makes it
		d.files = append(d.files, definition.HostFile{Path: b.SpecDisk, Role: definition.RoleSpec})
	}
	err := filepath.WalkDir(b.Spec, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			d.files = append(d.files, definition.HostFile{Path: path, Role: definition.RoleSpec})
		}
		return err
	})
	if err != nil {
		d.definition.Missing = append(d.definition.Missing, fmt.Sprintf("the specification of the builder's images: %v", err))
	}
}

// describeDisk describes a disk: one that is backed up as the reader sees it, and
// another as its file is.
func (b *backups) describeDisk(v round.VM, k *config.Disk, disks []round.Source, r *sandbox.Reader, d *definition.Definition) definition.Disk {
	out := definition.Disk{
		Name: k.Name, Path: k.Path, Format: k.Format, Backup: k.Backup,
		Mount: k.Mount, Partition: k.Partition, Volume: k.Volume, Image: k.Image,
	}
	if info, err := os.Stat(k.Path); err == nil {
		owner := definition.OwnerOf(info)
		out.Owner = &owner
	}
	release := func() (image.Version, error) { return b.installed(v.Name, k) }
	if i := slices.IndexFunc(disks, func(s round.Source) bool { return s.Disk.Name == k.Name }); i >= 0 {
		read := r.Disks()[i]
		// What is backed up was frozen before this round's update.
		release = func() (image.Version, error) { return b.ofDigest(k.Image, disks[i].Identity) }
		out.Size, out.ClusterSize = read.Size(), read.Info().ClusterSize
	} else if size, err := diskSize(k); err != nil {
		d.Missing = append(d.Missing, fmt.Sprintf("the size of disk %s: %v", k.Name, err))
	} else {
		out.Size = size
	}
	if k.Image == "" {
		return out
	}
	switch version, err := release(); {
	case err != nil:
		d.Missing = append(d.Missing, fmt.Sprintf("the version of disk %s: %v", k.Name, err))
	case version.ID != "":
		out.Release = &definition.Release{Image: version.Image, Version: version.ID, Size: version.Size, SHA256: version.SHA256}
	}
	return out
}

// installed is the version of an image that a disk is made from; none has no ID.
func (b *backups) installed(vm string, k *config.Disk) (image.Version, error) {
	in, ok, err := b.h.images.Installed(vm, k.Name)
	if err != nil || !ok {
		return image.Version{}, err
	}
	return b.h.images.Get(in.Image, in.Version)
}

// ofDigest is the version with that digest; of no digest it is none, and has no ID.
func (b *backups) ofDigest(name, sha256 string) (image.Version, error) {
	if sha256 == "" {
		return image.Version{}, nil
	}
	return b.h.images.ByDigest(name, sha256)
}

// diskSize is how large the guest sees a disk that no reader has opened, in bytes.
func diskSize(k *config.Disk) (int64, error) {
	if k.Format == config.FormatQCOW2 {
		header, err := qemuimg.ReadHeader(k.Path)
		return header.VirtualSize, err
	}
	f, err := os.Open(k.Path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, io.SeekEnd) // of a block device, too
}

// save stores the definition.
func (d *described) save(ctx context.Context, parent *repository.Snapshot) ([]backup.Object, error) {
	return definition.Save(ctx, d.repo, parent, &d.definition, d.files, d.config, d.written)
}

// miss notes what will be missing each night.
func (d *described) miss(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	d.known, d.definition.Missing = append(d.known, text), append(d.definition.Missing, text)
}

// warnings says what the definition lacks, and should not.
func (d *described) warnings() []string {
	var out []string
	for _, m := range d.definition.Missing {
		if slices.Contains(d.known, m) {
			continue
		}
		out = append(out, "the VM's definition is not whole: "+m)
	}
	return out
}
