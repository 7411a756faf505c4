//go:build linux

package systemd

import (
	"context"
	"fmt"
	"strings"

	"github.com/drydock-vm/drydock/internal/vm"
)

// Definition names the unit's file and its drop-ins, as systemd itself has loaded
// them, and the first command that it runs, and as whom. Files that the unit has from nobody,
// those of generators and of transient units, are among them.
func (m *Machine) Definition(ctx context.Context) (vm.Definition, error) {
	var d vm.Definition
	err := m.with(ctx, "definition", func(c *connection) (err error) {
		d, err = c.definition(ctx)
		return err
	})
	return d, err
}

// definition reads the properties FragmentPath, DropInPaths and ExecStart.
func (c *connection) definition(ctx context.Context) (vm.Definition, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	all, err := c.conn.GetAllPropertiesContext(ctx, c.name)
	if err != nil {
		return vm.Definition{}, fmt.Errorf("ask systemd about the unit: %w", err)
	}
	p := properties{all: all}
	if load := read[string](&p, "LoadState"); load != "loaded" && p.err == nil {
		return vm.Definition{}, notLoaded(load)
	}
	var d vm.Definition
	if file := read[string](&p, "FragmentPath"); file != "" {
		d.Files = append(d.Files, file)
	}
	d.Files = append(d.Files, read[[]string](&p, "DropInPaths")...)
	// Each is (path, argv, …): see ExecStart in org.freedesktop.systemd1(5).
	if runs := read[[][]any](&p, "ExecStart"); len(runs) > 0 && len(runs[0]) > 1 {
		argv, ok := runs[0][1].([]string)
		if !ok {
			return vm.Definition{}, fmt.Errorf("systemd's property ExecStart has a %T, which drydock does not know", runs[0][1])
		}
		d.Command = argv
	}
	d.User = read[string](&p, "User")
	if d.User == "" && read[bool](&p, "DynamicUser") {
		d.User = strings.TrimSuffix(c.name, ".service") // as systemd names one, if it can
	}
	return d, p.err
}

// Reload has systemd read its units again, as it must after their files have changed.
func (m *Machine) Reload(ctx context.Context) error {
	return m.with(ctx, "reload", func(c *connection) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if err := c.conn.ReloadContext(ctx); err != nil {
			return fmt.Errorf("have systemd read its units: %w", err)
		}
		return nil
	})
}
