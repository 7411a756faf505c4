package systemd

import (
	"context"
	"errors"

	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

const fillOp = "fill in a disk of"

// CanFill is described at [vm.Filler].
func (m *Machine) CanFill(context.Context, string) error {
	if m.o.QMPSocket == "" {
		return m.fail(fillOp, vm.WithHint(errors.New("nobody knows its QMP socket"), "give qmp, and -qmp unix:PATH,server=on,wait=off in the unit"))
	}
	return nil
}

// Fill is described at [vm.Filler].
func (m *Machine) Fill(ctx context.Context, path string, progress func(done, of int64)) error {
	if err := m.CanFill(ctx, path); err != nil {
		return err
	}
	return m.fail(fillOp, qmp.Fill(ctx, qmp.At(m.o.QMPSocket), path, progress))
}
