package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/unit"
)

func (a *app) systemdCmd() *cobra.Command {
	var root string
	c := &cobra.Command{
		Use:   "systemd",
		Short: "Write the units that run drydock every night",
		Long: `Write the units that run drydock by itself: drydock.timer starts a round when
schedule: says, drydock-recover.service puts right at boot what was cut off,
drydock-check.timer looks each day for backups that are missing (max_age), also when
no round ran, and a drop-in lets the builder's own unit start only when a build is
due.`,
		RunE: group,
	}
	c.PersistentFlags().StringVar(&root, "root", "/", "write below this folder, and leave the running systemd alone")
	c.AddCommand(
		&cobra.Command{
			Use:   "show",
			Short: "Print the units, and write nothing",
			Args:  args(cobra.NoArgs),
			RunE: func(*cobra.Command, []string) error {
				files, err := a.units()
				if err == nil {
					a.printf("%s", unit.Format(files))
				}
				return err
			},
		},
		&cobra.Command{
			Use:   "install",
			Short: "Write the units and start the timers",
			Args:  args(cobra.NoArgs),
			RunE:  func(c *cobra.Command, _ []string) error { return a.systemdInstall(c.Context(), root) },
		},
		&cobra.Command{
			Use:   "remove",
			Short: "Stop the timers and remove the units",
			Args:  args(cobra.NoArgs),
			RunE:  func(c *cobra.Command, _ []string) error { return a.systemdRemove(c.Context(), root) },
		},
	)
	return c
}

// units are the unit files for this host's configuration.
func (a *app) units() ([]unit.File, error) {
	c, err := a.load()
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	path, err := filepath.Abs(a.configPath)
	if err != nil {
		return nil, err
	}
	o := unit.Options{Executable: exe, ConfigPath: path, Schedule: c.Schedule, OnlyUnits: true}
	for _, v := range c.SortedVMs() {
		switch v.Driver {
		case config.DriverQEMU:
			o.OnlyUnits = false
			continue
		case config.DriverLibvirt:
			o.Libvirt = true
			continue
		}
		o.VMUnits = append(o.VMUnits, v.Unit)
		if v.Builder != nil {
			o.BuilderUnit, o.BuilderVM = v.Unit, v.Name
		}
	}
	return unit.Files(o)
}

func (a *app) systemdInstall(ctx context.Context, root string) error {
	files, err := a.units()
	if err != nil {
		return err
	}
	changed, err := unit.Install(root, files)
	for _, p := range changed {
		a.printf("wrote %s\n", p)
	}
	if err != nil || root != "/" {
		return err
	}
	return withSystemd(ctx, unit.Activate)
}

func (a *app) systemdRemove(ctx context.Context, root string) error {
	removed, err := unit.Remove(root)
	for _, p := range removed {
		a.printf("removed %s\n", p)
	}
	if err != nil || root != "/" {
		return err
	}
	return withSystemd(ctx, unit.Deactivate)
}

func withSystemd(ctx context.Context, do func(context.Context, *dbus.Conn) error) error {
	conn, err := dbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return fmt.Errorf("reach systemd: %w (the files are as they should be; systemctl daemon-reload makes them known)", err)
	}
	defer conn.Close()
	return do(ctx, conn)
}
