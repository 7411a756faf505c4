package cli

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/demo"
)

func (a *app) demoCmd() *cobra.Command {
	var cache string
	c := &cobra.Command{
		Use:   "demo DIR",
		Short: "Everything above, on throwaway VMs",
		Long: `Make two virtual machines in DIR, and take them through three nights: a round with
backups, a build inside the builder VM, a round that installs what it built, and
a round with an image that does not work. DIR is left to be looked at; nothing
keeps running. It needs what scripts/install-deps demo installs, about 6 GB of
disk, and 3 GB of memory.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, dirs []string) error {
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			return demo.Run(c.Context(), demo.Options{Dir: dirs[0], Executable: exe, Cache: cache, Out: a.stdout})
		},
	}
	c.Flags().StringVar(&cache, "cache", demoCache(), "folder with the guests' kernel, as scripts/install-deps makes it")
	return c
}

// demoCache is where scripts/install-deps puts the kernel: .cache beside the
// repository that drydock was built in, or $DRYDOCK_CACHE.
func demoCache() string {
	if dir := os.Getenv("DRYDOCK_CACHE"); dir != "" {
		return dir
	}
	exe, err := os.Executable()
	if err != nil {
		return ".cache"
	}
	return filepath.Join(filepath.Dir(filepath.Dir(exe)), ".cache")
}

// demoWatchCmd is the process that cleans up after a demo.
func (a *app) demoWatchCmd() *cobra.Command {
	return &cobra.Command{
		Use:    demo.WatchVerb + " DIR",
		Hidden: true,
		Args:   args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, dirs []string) error {
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			return demo.Watch(exe, dirs[0], a.stdin)
		},
	}
}
