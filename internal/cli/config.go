package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/config"
)

func (a *app) configCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check, show or begin the configuration",
		RunE:  group,
	}
	c.AddCommand(
		&cobra.Command{
			Use:   "check",
			Short: "Check the configuration file",
			Args:  args(cobra.NoArgs),
			RunE: func(*cobra.Command, []string) error {
				cfg, err := a.load()
				if err == nil {
					a.printf("%s: good, %d VMs\n", a.configPath, len(cfg.VMs))
				}
				return err
			},
		},
		&cobra.Command{
			Use:   "show",
			Short: "Print the configuration with every default filled in",
			Args:  args(cobra.NoArgs),
			RunE:  func(*cobra.Command, []string) error { return a.configShow() },
		},
		&cobra.Command{
			Use:   "schema",
			Short: "Print the JSON Schema of the configuration, for editors",
			Args:  args(cobra.NoArgs),
			RunE: func(*cobra.Command, []string) error {
				_, err := a.stdout.Write(config.Schema())
				return err
			},
		},
		&cobra.Command{
			Use:   "init",
			Short: "Write a commented sample to the configuration's path",
			Args:  args(cobra.NoArgs),
			RunE:  func(*cobra.Command, []string) error { return a.configInit() },
		},
	)
	return c
}

func (a *app) configShow() error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(cfg)
	}
	text, err := cfg.Show()
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(text)
	return err
}

func (a *app) configInit() error {
	if err := os.MkdirAll(filepath.Dir(a.configPath), 0o755); err != nil {
		return fmt.Errorf("write the sample: %w", err)
	}
	f, err := os.OpenFile(a.configPath, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already; it was not touched", a.configPath)
	}
	if err != nil {
		return fmt.Errorf("write the sample: %w", err)
	}
	if _, err := f.Write(config.Sample()); err != nil {
		f.Close()
		return fmt.Errorf("write the sample: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write the sample: %w", err)
	}
	a.printf("wrote %s: edit it, then drydock config check\n", a.configPath)
	return nil
}
