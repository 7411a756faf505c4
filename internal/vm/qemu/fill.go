//go:build linux

package qemu

import (
	"context"

	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

// CanFill is described at [vm.Filler]: of a command everything can be filled in.
func (m *Machine) CanFill(context.Context, string) error { return nil }

// Fill is described at [vm.Filler].
func (m *Machine) Fill(ctx context.Context, path string, progress func(done, of int64)) error {
	if err := qmp.Fill(ctx, qmp.At(m.path(qmpSocket)), path, progress); err != nil {
		return m.fail("fill in a disk of", err, "")
	}
	return nil
}
