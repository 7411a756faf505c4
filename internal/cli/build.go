package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/build"
)

func (a *app) buildCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "build",
		Short: "Build images: run inside the builder VM, prepare on its host",
		RunE:  group,
	}
	c.AddCommand(a.buildRunCmd(), a.buildPrepareCmd())
	return c
}

func (a *app) buildRunCmd() *cobra.Command {
	var o build.Options
	c := &cobra.Command{
		Use:   "run",
		Short: "Inside the builder VM: build what the specification disk asks for",
		Long: `Inside the builder VM: build what the specification disk asks for, unless that has
been done. It needs no configuration file. The last line that it prints says how
it ended: "drydock build: finished ID", "failed ID: REASON" or "nothing to do".`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if o.SpecDevice == "" || o.OutputDir == "" {
				return usageError("--spec and --output are required")
			}
			o.Progress, o.Now = a.stdout, a.now
			return build.Run(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.SpecDevice, "spec", "", "specification disk: a block device or a file")
	f.StringVar(&o.OutputDir, "output", "", "folder where the output disk is mounted")
	f.StringVar(&o.BaseDir, "bases", "", "folder of base images, one OCI layout per folder")
	f.StringVar(&o.StorageDriver, "storage-driver", "overlay", "buildah's storage driver: overlay or vfs")
	return c
}

func (a *app) buildPrepareCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "prepare VM",
		Short: "On the host: write the specification disk if a build is due (for ExecStartPre=)",
		Long: `On the host: write the specification disk of the builder VM if a build is due.
drydock run does so itself; this is for a unit that is started in another way.
The VM must be off.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error { return a.buildPrepare(c.Context(), names[0]) },
	}
}

func (a *app) buildPrepare(ctx context.Context, name string) error {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	v, err := h.builder(name)
	if err != nil {
		return err
	}
	id, due, err := h.runner.PrepareBuild(ctx, v)
	if err != nil {
		return err
	}
	if !due.Due {
		a.printf("not due: %s\n", due.Reason)
		return nil
	}
	a.printf("build %s: %s\n", id, due.Reason)
	return nil
}
