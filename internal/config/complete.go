package config

import (
	"path/filepath"
	"reflect"
	"strings"

	"github.com/drydock-vm/drydock/internal/location"
)

// complete fills the defaults that depend on other values, and makes paths
// absolute.
func (c *Config) complete(dir string) {
	abs := func(paths ...*string) {
		for _, p := range paths {
			if *p != "" && !filepath.IsAbs(*p) {
				*p = filepath.Join(dir, *p)
			} else if *p != "" {
				*p = filepath.Clean(*p)
			}
		}
	}
	abs(&c.State, &c.Runtime, &c.Writer.Kernel, &c.Writer.Modules)
	places := []*Repository{&c.Repository}
	for i := range c.Copies {
		places = append(places, &c.Copies[i].Repository)
		if c.Copies[i].Verify.Mode == "" {
			c.Copies[i].Verify.Mode = c.Verify.Mode
		}
	}
	for _, r := range places {
		abs(&r.PasswordFile, &r.CredentialsFile, &r.CAFile)
		if r.PasswordFile == "" {
			r.PasswordFile = filepath.Join(c.State, "repository.key")
		}
		// A location that cannot be used is found by check.
		if l, err := location.Parse(r.Path); err == nil && l.Kind == location.Local {
			r.Path = l.Path
			abs(&r.Path)
		}
		if r.SFTP != nil {
			abs(&r.SFTP.IdentityFile, &r.SFTP.KnownHosts)
		}
	}
	if len(c.Copies) == 0 {
		c.Copies = nil // an empty list is no list, as Show writes it
	}
	for i := range c.DiskFolders {
		abs(&c.DiskFolders[i])
	}
	if c.Sandbox.AllowWithout == nil {
		c.Sandbox.AllowWithout = []Layer{}
	}
	if c.DiskFolders == nil {
		c.DiskFolders = []string{}
	}
	if c.Images == nil {
		c.Images = map[string]*Image{}
	}
	c.completeRetain()
	for name, vm := range c.VMs {
		vm.Name = name
		abs(&vm.QMP, &vm.Console, &vm.Socket)
		if vm.Health.Probes == nil {
			vm.Health.Probes = []Probe{{Active: true}}
		}
		for name, d := range vm.Disks {
			d.Name = name
			abs(&d.Path)
			if len(d.Include) == 0 {
				d.Include = nil // an empty list is no list, as Show writes it
			}
			if len(d.Exclude) == 0 {
				d.Exclude = nil
			}
			if d.Backing != nil {
				abs(&d.Backing.Path)
			}
		}
		for name, s := range vm.Sinks {
			s.Name = name
			if s.Borg != nil {
				abs(&s.Borg.PassphraseFile)
				if !strings.Contains(s.Borg.Repository, ":") { // a folder
					abs(&s.Borg.Repository)
				}
			}
		}
		if vm.Builder != nil {
			abs(&vm.Builder.Spec, &vm.Builder.SpecDisk)
			for _, image := range vm.Builder.Images {
				if c.Images[image] == nil {
					c.Images[image] = newImage()
				}
			}
		}
	}
}

// newImage is the settings of an image that the file says nothing about.
func newImage() *Image {
	image := &Image{}
	setDefaults(reflect.ValueOf(image).Elem())
	return image
}
