// Package cli is drydock's command line: one verb per file, and the wiring of
// all rooms into rounds. It alone knows the configuration's structs and the
// exit codes.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/garbage"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/state"
)

// The exit codes.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitWarnings = 3
	exitLocked   = 4
	// exitDueError is that of drydock due, where 1 means "not due" and systemd
	// takes everything below 255 as a reason to skip the unit (ExecCondition=
	// in systemd.service(5)).
	exitDueError = 255
)

// exitError carries an exit code that the error's kind does not tell. A nil
// err prints nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageError is for a command line that makes no sense.
func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// app is what all verbs share.
type app struct {
	stdin      io.Reader
	stdout     io.Writer
	stderr     io.Writer
	configPath string
	json       bool
	now        func() time.Time
	locked     *lockedRepository // what targets in it are read from; nil if none is open
}

// Main runs drydock and returns its exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	garbage.Bound(garbage.Spare)
	now, err := clock(os.Getenv("DRYDOCK_CLOCK"))
	if err != nil {
		fmt.Fprintf(stderr, "drydock: %v\n", err)
		return exitUsage
	}
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, now: now}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := a.root()
	root.SetArgs(args)
	err = root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(stderr, "drydock: %s\n", printable(text))
	}
	return exitCode(err)
}

// printable escapes what an error says, but for its lines and tabs: a path or a piece of
// a configuration in it may be a guest's, or out of a stranger's repository.
func printable(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		fields := strings.Split(line, "\t")
		for k := range fields {
			fields[k] = escape.Line(fields[k])
		}
		lines[i] = strings.Join(fields, "\t")
	}
	return strings.Join(lines, "\n")
}

func exitCode(err error) int {
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		return exit.code
	case errors.Is(err, state.ErrLocked), errors.Is(err, repository.ErrLocked):
		return exitLocked
	}
	return exitFailed
}

// clock is the time, moved by an offset such as "144h": so that tests against
// a real systemd need not wait for a week.
func clock(offset string) (func() time.Time, error) {
	if offset == "" {
		return time.Now, nil
	}
	d, err := time.ParseDuration(offset)
	if err != nil {
		return nil, fmt.Errorf("the environment variable DRYDOCK_CLOCK: %w", err)
	}
	return func() time.Time { return time.Now().Add(d) }, nil
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "drydock",
		Short: "Takes every virtual machine of a host into the dock each night",
		Long: `drydock takes every virtual machine of a Linux host into the dock each night:
stops it, freezes its disks, refits it with a newly built image if there is
one, has it running again within seconds, and backs its data up file by file
while it already runs.`,
		Version:       readBuilt().String(),
		Args:          cobra.ArbitraryArgs,
		RunE:          group,
		SilenceErrors: true,
		SilenceUsage:  true,
		CompletionOptions: cobra.CompletionOptions{
			HiddenDefaultCmd: true,
		},
	}
	root.PersistentFlags().StringVarP(&a.configPath, "config", "c", config.DefaultPath, "configuration file")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.SetVersionTemplate("drydock {{.Version}}\n")
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError("%w (%s --help shows the flags)", err, c.CommandPath())
	})
	root.AddGroup(
		&cobra.Group{ID: "round", Title: "Rounds:"},
		&cobra.Group{ID: "look", Title: "Looking:"},
		&cobra.Group{ID: "data", Title: "Backups and images:"},
		&cobra.Group{ID: "inside", Title: "Into disks and backups, with no VM and no root:"},
		&cobra.Group{ID: "host", Title: "The host:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("round", a.runCmd(), a.planCmd(), a.recoverCmd(), a.dueCmd(), a.buildCmd(), a.startCmd(), a.stopCmd())
	add("look", a.statusCmd(), a.historyCmd())
	add("inside", a.infoCmd(), a.lsCmd(), a.treeCmd(), a.statCmd(), a.catCmd(), a.tarCmd(), a.diffCmd(), a.findCmd(), a.mountCmd(), a.nbdCmd())
	add("data", a.backupsCmd(), a.restoreCmd(), a.startFromBackupCmd(), a.verifyCmd(), a.imagesCmd())
	add("host", a.configCmd(), a.doctorCmd(), a.systemdCmd(), a.demoCmd())
	root.AddCommand(a.demoWatchCmd())
	return root
}

// args turns cobra's complaints about positional arguments into usage errors.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usageError("%w (usage: drydock %s)", err, strings.TrimPrefix(c.UseLine(), "drydock "))
		}
		return nil
	}
}

// group is the RunE of a verb that only has verbs below it.
func group(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		hint := c.CommandPath() + " --help lists what it knows"
		c.SuggestionsMinimumDistance = 2 // letters that are wrong
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			hint = "is it " + strings.Join(near, ", or ") + "? " + hint
		}
		return usageError("there is no %q (%s)", c.CommandPath()+" "+args[0], hint)
	}
	return c.Help()
}

// printJSON prints v as indented JSON.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printResult prints v as JSON where that is asked for, and a line of text otherwise.
func (a *app) printResult(v any, format string, args ...any) error {
	if a.json {
		return a.printJSON(v)
	}
	a.printf(format+"\n", args...)
	return nil
}

// jsonList prints the elements of a JSON array as they come, between the brackets
// that the caller prints.
type jsonList struct{ any bool }

func (l *jsonList) add(w io.Writer, v any) error {
	comma := ""
	if l.any {
		comma = ","
	}
	l.any = true
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n  %s", comma, text)
	return err
}

func (a *app) printf(format string, args ...any) {
	fmt.Fprintf(a.stdout, format, args...)
}

// warn tells of something that was found and put right on the way.
func (a *app) warn(err error) {
	fmt.Fprintf(a.stderr, "drydock: warning: %s\n", escape.Line(err.Error()))
}

func (a *app) load() (*config.Config, error) {
	c, err := config.Load(a.configPath)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return c, nil
}
