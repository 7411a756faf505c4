package config

import (
	_ "embed"
	"fmt"

	"github.com/goccy/go-yaml"
)

// The JSON Schema of the file, generated from the structs by the tests of this
// package (go test -run Schema -update).
//
//go:embed drydock.schema.json
var schema []byte

//go:embed sample.yaml
var sample []byte

// Schema returns the JSON Schema (draft 2020-12) of the configuration file.
func Schema() []byte { return append([]byte(nil), schema...) }

// Sample returns the commented configuration that "drydock config init"
// writes. It is a valid configuration.
func Sample() []byte { return append([]byte(nil), sample...) }

// Show returns the configuration as YAML with every default filled in. Parsing
// it gives the same configuration.
func (c *Config) Show() ([]byte, error) {
	out, err := yaml.MarshalWithOptions(c, yaml.IndentSequence(true), yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return nil, fmt.Errorf("write the configuration as YAML: %w", err)
	}
	return out, nil
}

// ShowVM returns what the configuration says of one VM, as YAML with every default
// filled in: the keys "vms", "images" as far as the VM has or builds some, and
// nothing of repositories and their logins. Backing files are left out: a disk that
// is restored has none.
func (c *Config) ShowVM(name string) ([]byte, error) {
	vm, ok := c.VMs[name]
	if !ok {
		return nil, fmt.Errorf("there is no VM %q", name)
	}
	alone := *vm
	alone.Disks = make(map[string]*Disk, len(vm.Disks))
	images := map[string]*Image{}
	for key, d := range vm.Disks {
		flat := *d
		flat.Backing = nil
		alone.Disks[key] = &flat
		if d.Image != "" {
			images[d.Image] = c.Images[d.Image]
		}
	}
	if vm.Builder != nil {
		for _, image := range vm.Builder.Images {
			images[image] = c.Images[image]
		}
	}
	part := struct {
		VMs    map[string]*VM    `yaml:"vms"`
		Images map[string]*Image `yaml:"images,omitempty"`
	}{map[string]*VM{name: &alone}, images}
	out, err := yaml.MarshalWithOptions(part, yaml.IndentSequence(true), yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return nil, fmt.Errorf("write the configuration of %s as YAML: %w", name, err)
	}
	return out, nil
}
