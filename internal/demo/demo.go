// Package demo runs drydock's main job on throwaway virtual machines: three
// nights of a web server and of the builder that makes its images, all real,
// with the very commands that a user would type.
//
// Everything lies under one folder and stays there to be looked at. The VMs and
// whatever else was started are gone when the demo ends, however it ends: a
// second process watches for its death and stops them.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/internal/demo/guest"
)

// Options are the settings of a demo.
type Options struct {
	Dir        string // everything is kept here; absent or empty, or a former demo's
	Executable string // drydock itself
	Cache      string // holds kernel/, as scripts/install-deps makes it
	Out        io.Writer
}

// marker is the file by which a demo knows a folder that it may clear.
const marker = ".drydock-demo"

// demo is a demo under way.
type demo struct {
	Options
	started time.Time
	web     guest.Machine
	notes   []note // for the table at the end
}

// note is a line of the table at the end.
type note struct{ what, value string }

// Run runs the demo. It returns when all VMs are off.
func Run(ctx context.Context, o Options) (err error) {
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return err
	}
	if err := clear(o.Dir); err != nil {
		return err
	}
	d := &demo{Options: o, started: time.Now()}
	stop, err := d.watch()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	for _, step := range []func(context.Context) error{
		d.guests, d.firstNight, d.build, d.secondNight, d.thirdNight, d.restore, d.judge,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.summary()
	return nil
}

// clear empties the folder of a former demo. Any other folder must be empty.
func clear(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		entries, err = nil, os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return err
	}
	ours := slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == marker })
	if len(entries) > 0 && !ours {
		return fmt.Errorf("%s is not empty, and no former demo: name another folder", dir)
	}
	for _, e := range entries {
		if e.Name() == marker {
			continue // last: a clearing that is cut off can be taken up
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, marker), nil, 0o600)
}

func (d *demo) path(elements ...string) string {
	return filepath.Join(append([]string{d.Dir}, elements...)...)
}

// title announces a part, with the time since the beginning.
func (d *demo) title(format string, args ...any) {
	fmt.Fprintf(d.Out, "\n━━ %s ━━ %s\n\n", time.Since(d.started).Round(time.Second), fmt.Sprintf(format, args...))
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.Out, format+"\n", args...) }

func (d *demo) note(what, format string, args ...any) {
	d.notes = append(d.notes, note{what, fmt.Sprintf(format, args...)})
}

// drydock runs drydock as a user would, and shows the command and what it
// prints. An exit code other than want is an error.
func (d *demo) drydock(ctx context.Context, want int, args ...string) error {
	return d.command(ctx, d.Out, want, d.Executable, slices.Concat([]string{"--config", d.path("drydock.yaml")}, args)...)
}

// output is what drydock prints, not shown.
func (d *demo) output(ctx context.Context, args ...string) (string, error) {
	var out strings.Builder
	c := exec.CommandContext(ctx, d.Executable, slices.Concat([]string{"--config", d.path("drydock.yaml")}, args)...)
	c.Stdout, c.Stderr = &out, d.Out
	err := c.Run()
	return out.String(), err
}

func (d *demo) command(ctx context.Context, out io.Writer, want int, name string, args ...string) error {
	d.say("$ %s %s", filepath.Base(name), strings.Join(args, " "))
	c := exec.CommandContext(ctx, name, args...)
	// An interrupted round brings its VM up before it ends.
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 5 * time.Minute
	c.Stdout, c.Stderr = out, d.Out
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	if got := c.ProcessState.ExitCode(); got != want {
		return fmt.Errorf("%s ended with exit code %d, and %d was expected", filepath.Base(name), got, want)
	}
	return ctx.Err()
}
