package trial_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/health"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/testmount"
	"github.com/drydock-vm/drydock/internal/trial"
	"github.com/drydock-vm/drydock/internal/vm"
)

// idle are the options of a machine that has an empty disk, and does nothing.
func idle(t *testing.T, scratch string) trial.Options {
	t.Helper()
	dir := t.TempDir()
	return trial.Options{
		Name: "web", Folder: filepath.Join(dir, "run", "web"), Scratch: filepath.Join(scratch, "web"), Logs: filepath.Join(dir, "log"),
		Command: []string{"qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-m", "16", "-hda", "/srv/x.raw"},
		Disks:   []trial.Disk{{Name: "root", Path: "/srv/x.raw", Size: 1 << 20}},
		Timeout: time.Minute, Interval: 50 * time.Millisecond, Tool: qemuimg.New(qemuimg.Options{}),
	}
}

func gone(t *testing.T, o trial.Options) {
	t.Helper()
	for _, path := range []string{o.Folder, o.Scratch} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is there: %v", path, err)
		}
	}
}

// TestNoRoom: without room for what a guest writes no machine is started.
func TestNoRoom(t *testing.T) {
	o := idle(t, testmount.Memory(t, "16m"))
	if _, err := trial.Run(t.Context(), o); !errors.Is(err, trial.ErrRoom) || !errors.Is(err, trial.ErrStart) {
		t.Errorf("%v", err)
	}
	gone(t, o)
}

// TestGuestThatFillsTheDisk: it is ended before the disk is full.
func TestGuestThatFillsTheDisk(t *testing.T) {
	disk := testmount.Memory(t, "1050m")
	o := idle(t, disk)
	o.Probes = func(vm.Machine, int64, map[string]string) ([]health.Probe, error) {
		return []health.Probe{{Name: "fill", Check: func(context.Context) error {
			f, err := os.OpenFile(filepath.Join(disk, "written"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.Write(make([]byte, 4<<20))
			return errors.Join(errors.New("it writes on"), err)
		}}}, nil
	}
	if _, err := trial.Run(t.Context(), o); !errors.Is(err, trial.ErrRoom) {
		t.Errorf("%v", err)
	}
	gone(t, o)
}

// TestSweep: what a guest wrote goes too, also where the other folder was lost at a boot.
func TestSweep(t *testing.T) {
	o := idle(t, t.TempDir())
	if err := errors.Join(os.MkdirAll(o.Scratch, 0o700), os.WriteFile(filepath.Join(o.Scratch, "root.qcow2"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := trial.Sweep(filepath.Dir(o.Folder), filepath.Dir(o.Scratch)); err != nil {
		t.Fatal(err)
	}
	gone(t, o)
}
