//go:build linux

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/drydock-vm/drydock/internal/vm"
)

// disks is what a domain's XML says of what the guest has as disks, and what it hands
// through to QEMU.
type disks struct {
	List []diskXML `xml:"devices>disk"`
	Args []struct {
		Value string `xml:"value,attr"`
	} `xml:"http://libvirt.org/schemas/domain/qemu/1.0 commandline>arg"`
}

// diskXML is one disk. Of what lies below its image only that is asked for which drydock
// puts there, a server.
type diskXML struct {
	Driver struct {
		Type string `xml:"type,attr"`
	} `xml:"driver"`
	Source struct {
		File   string `xml:"file,attr"`
		Dev    string `xml:"dev,attr"`
		Volume string `xml:"volume,attr"` // in a pool that knows its path
	} `xml:"source"`
	// Backing is what the image lies on: where the domain is off only if somebody has
	// written it down, and whatever the image's header says.
	Backing *struct {
		Source struct {
			Protocol string `xml:"protocol,attr"`
		} `xml:"source"`
	} `xml:"backingStore"`
	Target struct {
		Dev string `xml:"dev,attr"`
	} `xml:"target"`
}

// served reports whether the disk's image lies on an NBD server.
func (d diskXML) served() bool { return d.Backing != nil && d.Backing.Source.Protocol == "nbd" }

// same reports whether two paths lead to one file.
func same(a, b string) bool {
	one, err := os.Stat(a)
	other, otherErr := os.Stat(b)
	return a == b || err == nil && otherErr == nil && os.SameFile(one, other)
}

// Attached says what is wrong if the image at path is no disk of the domain, as it is
// now: an external snapshot ("virsh snapshot-create --disk-only") leaves an image behind
// that nobody writes to any more, and below which nothing may change.
func (m *Machine) Attached(ctx context.Context, path string) error {
	return m.with(ctx, lookFor(path), func(d *domain) error {
		_, err := d.attached(path)
		return err
	})
}

func lookFor(path string) string { return "look for " + path + " in the domain of" }

// attached returns the domain's disks, of which the image at path is one.
func (d *domain) attached(path string) (*disks, error) {
	has := &disks{}
	if err := d.xml(has); err != nil {
		return nil, err
	}
	there, ok := has.find(path)
	if ok {
		return has, nil
	}
	err := errors.New("it is none of its disks")
	if len(there) > 0 {
		err = fmt.Errorf("%w, which are %q", err, there)
	}
	return nil, vm.WithHint(err, "configure the path that the domain has; if an external snapshot has put another image over this one, merge it: virsh blockcommit "+d.dom.Name+" DISK --active --pivot")
}

// find reports whether the image at path is one of the disks, or else what they are. Of a
// volume only its pool knows the path: it may be the one.
func (s *disks) find(path string) (there []string, found bool) {
	for i := range s.List {
		source := &s.List[i].Source
		if source.Volume != "" {
			return nil, true
		}
		at := source.File + source.Dev // it has one of them, or is empty
		if at == "" {
			continue
		}
		there = append(there, at)
		if same(at, path) {
			return nil, true
		}
	}
	for _, a := range s.Args {
		if strings.Contains(a.Value, path) {
			return nil, true
		}
	}
	return there, false
}
