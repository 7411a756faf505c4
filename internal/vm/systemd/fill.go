package systemd

import (
	"context"
	"errors"

	"github.com/drydock-vm/drydock/internal/vm"
	"github.com/drydock-vm/drydock/internal/vm/qmp"
)

// Fill is described at [vm.Filler].
func (m *Machine) Fill(ctx context.Context, path string, progress func(done, of int64)) error {
	const op = "fill in a disk of"
	if m.o.QMPSocket == "" {
		return m.fail(op, vm.WithHint(errors.New("nobody knows its QMP socket"), "give qmp, and -qmp unix:PATH,server=on,wait=off in the unit"))
	}
	return m.fail(op, qmp.Fill(ctx, qmp.At(m.o.QMPSocket), path, progress))
}
