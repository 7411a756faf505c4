package cli

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"

	"github.com/drydock-vm/drydock/internal/fill"
	"github.com/drydock-vm/drydock/internal/vm"
)

// findRunner finds out who runs the VM's QEMU, which has to reach drydock's socket.
func (f *filling) findRunner(ctx context.Context) error {
	machine, ok := f.round.Machine.(vm.Defined)
	if !ok {
		return nil
	}
	d, err := machine.Definition(ctx)
	if err != nil || d.User == "" {
		return err
	}
	uid, err := strconv.Atoi(d.User)
	if err != nil {
		if uid, err = lookUp(d.User); err != nil {
			return fmt.Errorf("%s runs as a user whom this host does not know before it runs: %w (give the unit a User= that there is)", f.v.Name, err)
		}
	}
	if uid != 0 {
		f.runner, f.files.UID = &fill.Owner{UID: uid, GID: -1, Mode: 0o600}, uid
	}
	return nil
}

// lookUp returns the number of a user.
func lookUp(name string) (int, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(u.Uid)
}

// owner is whose an image is in the place of a disk that is gone: as the backup says, or
// else of who runs the VM.
func (f *filling) owner(disk string) (*fill.Owner, error) {
	k, err := definedDisk(f.src, disk)
	if err != nil || os.Geteuid() != 0 {
		return nil, err
	}
	if k.Owner == nil {
		return f.runner, nil
	}
	return &fill.Owner{UID: int(k.Owner.UID), GID: int(k.Owner.GID), Mode: fs.FileMode(k.Owner.Mode)}, nil
}
