//go:build linux

package libvirt

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
		Volume string `xml:"volume,attr"` // in Pool, which knows its path
		Pool   string `xml:"pool,attr"`
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
	there, ok := d.find(has, path)
	if ok {
		return has, nil
	}
	err := errors.New("it is none of its disks")
	if len(there) > 0 {
		err = fmt.Errorf("%w, which are %q", err, there)
	}
	return nil, vm.WithHint(err, "configure the path that the domain has; if an external snapshot has put another image over this one, merge it: virsh blockcommit "+d.dom.Name+" DISK --active --pivot")
}

// find reports whether the image at path is one of the disks, or else what they are. A
// volume of which nobody can tell the path may be the one.
func (d *domain) find(has *disks, path string) (there []string, found bool) {
	for i := range has.List {
		at, err := d.path(&has.List[i])
		if err != nil || same(at, path) {
			return nil, true
		}
		if at != "" {
			there = append(there, at)
		}
	}
	for _, a := range has.Args {
		if strings.Contains(a.Value, path) {
			return nil, true
		}
	}
	return there, false
}

// path is that of a disk's image or device; empty is a drive with nothing in it.
func (d *domain) path(at *diskXML) (string, error) {
	if at.Source.Volume == "" {
		return at.Source.File + at.Source.Dev, nil // it has one of them
	}
	return d.volume(at.Source.Pool, at.Source.Volume)
}

// volume is the path of a volume in a pool that is a folder. libvirt calls its files by
// their names there (storageBackendVolBuildLocal), whether or not it has seen them yet.
func (d *domain) volume(pool, name string) (string, error) {
	p, err := d.conn.StoragePoolLookupByName(pool)
	if err != nil {
		return "", fmt.Errorf("look for storage pool %s: %w", pool, err)
	}
	text, err := d.conn.StoragePoolGetXMLDesc(p, 0)
	if err != nil {
		return "", fmt.Errorf("ask for the XML of storage pool %s: %w", pool, err)
	}
	var has struct {
		Type   string `xml:"type,attr"`
		Folder string `xml:"target>path"`
	}
	if err := xml.Unmarshal([]byte(text), &has); err != nil {
		return "", fmt.Errorf("read the XML of storage pool %s: %w", pool, err)
	}
	switch has.Type {
	case "dir", "fs", "netfs":
		return filepath.Join(has.Folder, name), nil
	}
	return "", fmt.Errorf("storage pool %s is of type %s, and no folder (dir, fs, netfs) of images", pool, has.Type)
}
