package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/rebuild"
)

// newConfig is what becomes of the configuration: the VM's part, which is in the tree, is
// put into it, or, if it shall stay as it is, written beside it.
func (h *host) newConfig(tree disk.Filesystem, d *definition.Definition, to string, apart bool) (rebuild.Config, error) {
	path, err := filepath.Abs(h.app.configPath)
	if err != nil {
		return rebuild.Config{}, err
	}
	if to != "" {
		path = filepath.Join(to, config.DefaultPath)
	}
	text, err := definition.LoadConfig(tree)
	if err != nil {
		return rebuild.Config{}, err
	}
	if apart {
		return besideConfig(path, d.VM, text)
	}
	out, err := h.mergedConfig(path, d, text)
	if err != nil {
		return out, fmt.Errorf("%w (--without-config restores the rest, and writes the VM's part to %s)", err, path+"."+d.VM)
	}
	return out, nil
}

// besideConfig is a VM's part of a configuration in a file of its own, as the backup has
// it: for a person to read, and to add.
func besideConfig(path, vm string, text []byte) (rebuild.Config, error) {
	out := rebuild.Config{Path: path + "." + vm, Beside: path, Text: text, Note: "the VM's part, to be added to the configuration by hand"}
	switch there, err := os.ReadFile(out.Path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return out, err
	case !bytes.Equal(there, text):
		out.Problem = "another file is there already: move it away"
	}
	return out, nil
}

// mergedConfig is the configuration at path with the VM's part in it.
func (h *host) mergedConfig(path string, d *definition.Definition, text []byte) (rebuild.Config, error) {
	out := rebuild.Config{Path: path}
	part, err := config.ParsePart("/.drydock/drydock.yaml", d.VM, text)
	if err != nil { // it shows lines of what the repository says
		return out, fmt.Errorf("what the backup has of drydock's configuration is not valid: %s", escape.Line(err.Error()))
	}
	moved := otherDisk(d, part.VM())
	data, err := os.ReadFile(out.Path)
	if errors.Is(err, fs.ErrNotExist) {
		out.Note, out.Problem = "a new one, with this VM alone", moved
		out.Text, err = part.File(h.config.State, h.config.Repository)
		return out, err
	}
	if err != nil {
		return out, err
	}
	text, added, err := part.Merge(out.Path, data)
	switch {
	case err != nil:
		return out, err
	case added:
		out.Was, out.Text, out.Note, out.Problem = data, text, "with this VM added to it", moved
	default:
		out.Note = "it has this VM already, and stays as it is"
	}
	return out, nil
}

// otherDisk says which disk the configuration has elsewhere than the definition, or
// otherwise: rounds would write to one that no plan has shown and nobody has allowed.
func otherDisk(d *definition.Definition, v *config.VM) string {
	for _, k := range v.SortedDisks() {
		if was := d.Disk(k.Name); was == nil || was.Path != k.Path || was.Format != k.Format || was.Image != k.Image {
			return fmt.Sprintf("it has disk %s at %s, and the definition has it elsewhere or otherwise: no backup of drydock says so", k.Name, k.Path)
		}
	}
	return ""
}
