// Package guest makes the two virtual machines of `drydock demo`: Debian with
// systemd, from the Debian archive to bootable disks in about a minute, without
// mounting anything and without root.
//
//   - web is an ordinary server: a root disk that carries no state (since
//     versions of an image replace it), a data disk on /var, and a service that
//     answers HTTP with the version of its image. Each boot is noted in
//     /var/lib/app/boots. The first boot writes /var/lib/app/letter.txt and
//     letter.sha256, and the second deletes the letter.
//   - builder is a builder VM: it has no network, but the real buildah, drydock
//     itself, a spec disk that it can only read, an output disk, and web's first
//     version as the base image localhost/debian-web.
//
// Both power off in order when their ACPI power button is pressed. On the
// serial console, "web: ready VERSION" and "drydock builder: ready" say that
// they are up, and lines that begin with "drydock build:" what the build does.
//
// The package needs what `scripts/install-deps demo` installs.
package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

// Versions of web: that of its first root disk, and that which the spec folder
// builds.
const (
	FirstVersion = "web-1"
	NextVersion  = "web-2"
)

// Options say where things are and go.
type Options struct {
	// Dir is an existing folder for the disks.
	Dir string
	// Cache is the folder in which scripts/install-deps has put the kernel.
	// The packages that the guests are made from are kept there too, ready to
	// be used again.
	Cache string
	// Drydock is the binary for the builder: static, for linux/amd64.
	Drydock string
	// Progress takes one plain line per step.
	Progress io.Writer
}

// Disk is one disk of a guest.
type Disk struct {
	Name   string
	Path   string
	Format string // "raw" or "qcow2"
	Mount  string // where the guest mounts it; empty for the spec disk
}

// Machine is one guest.
type Machine struct {
	Name string
	// Command starts it: QEMU and its arguments, but for -pidfile, -qmp and
	// -serial, which whoever starts it appends.
	Command []string
	// Disks in the order of their names in the guest, /dev/nvme0n1 first.
	Disks []Disk
	// Port of the host's 127.0.0.1 on which the guest answers HTTP, 0 if it
	// has no network. QEMU accepts connections there from its own start on.
	Port int
}

// Disk returns the disk of the given name, and whether there is one.
func (m Machine) Disk(name string) (Disk, bool) {
	for _, disk := range m.Disks {
		if disk.Name == name {
			return disk, true
		}
	}
	return Disk{}, false
}

// Guests are the machines of the demo. The disks of web are "root" and "data",
// those of builder "root", "data", "output" and "spec".
type Guests struct {
	Web     Machine
	Builder Machine
	// SpecFolder holds the Containerfiles that builder is to build: one image,
	// web, of version NextVersion.
	SpecFolder string
}

// Make makes both guests.
func Make(ctx context.Context, o Options) (*Guests, error) {
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	kernel, err := findKernel(o.Cache)
	if err != nil {
		return nil, err
	}
	work := filepath.Join(o.Dir, "guest.work")
	if err := errors.Join(removeTree(ctx, work), os.MkdirAll(work, 0o755)); err != nil {
		return nil, err
	}
	m := maker{Options: o, kernel: kernel, work: work, started: time.Now()}
	guests, err := m.make(ctx)
	if err != nil {
		return nil, fmt.Errorf("make the guests: %w", err)
	}
	if err := removeTree(ctx, work); err != nil {
		return nil, err
	}
	m.say("the guests are ready")
	return guests, nil
}

// maker is the making of the guests.
type maker struct {
	Options
	kernel  kernel
	work    string // folder for what is not needed afterwards
	started time.Time
}

func (m *maker) say(format string, arguments ...any) {
	fmt.Fprintf(m.Progress, "%3.0f s  %s\n", time.Since(m.started).Seconds(), fmt.Sprintf(format, arguments...))
}

// make makes web's packages first: builder's are those and more. Then web's
// disks and builder's packages are made at the same time.
func (m *maker) make(ctx context.Context) (*Guests, error) {
	guests := &Guests{SpecFolder: filepath.Join(m.Dir, "spec")}
	if err := copyEmbedded(specFiles, "spec", guests.SpecFolder); err != nil {
		return nil, err
	}
	webTar, err := m.debian(ctx, webPackages, "")
	if err != nil {
		return nil, err
	}
	group, groupContext := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		guests.Web, err = m.makeWeb(groupContext, webTar)
		return err
	})
	var builderTar string
	group.Go(func() (err error) {
		builderTar, err = m.debian(groupContext, builderPackages, webTar)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	guests.Builder, err = m.makeBuilder(ctx, builderTar)
	return guests, err
}
