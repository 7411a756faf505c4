// Package sink hands a VM's frozen disks to other backup software, for those who
// have it already: borg, or any program that takes a folder, a tar or a raw disk.
//
// A program sees what a backup of drydock's own would: the disks as they were when
// they were frozen, read by the confined worker. It never gets an image file, and
// cannot write. What it does with what it reads is its own: drydock knows whether it
// ended well, and no more.
//
//	rep, err := sink.Run(ctx, sink.Borg(sink.BorgOptions{Repository: "/srv/borg"}), vm, disks, opts)
//
// A program that fails, hangs or ends early is one error of type [*Error], which
// names it and carries the end of what it printed.
package sink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/disk"
)

// Input is the form in which a program gets the disks.
type Input string

// The inputs.
const (
	// Folder is a folder with one folder for each disk, read-only, which is the
	// program's working directory.
	Folder Input = "folder"
	// Tar is a tar (PAX) of one disk's files on standard input, once for each
	// disk.
	Tar Input = "tar"
	// Raw is all bytes of one disk on standard input, once for each disk.
	Raw Input = "raw"
)

// Program is what takes the disks.
type Program struct {
	Name string // in reports and errors
	// Args is the command line; no shell looks at it. In each argument {vm},
	// {disk} (not with [Folder]) and {time} are replaced; {time} is as
	// 2006-01-02T15-04-05Z, which any file system and any archive's name takes.
	Args  []string
	Input Input
	// Env is added to PATH, HOME and LANG, the only variables that the program
	// gets of drydock's own.
	Env []string
	// Secret is a file whose content the program may read once from file
	// descriptor 3; "" for none.
	Secret string
	// Warn is the exit codes that mean that all is stored but for what the
	// program has named.
	Warn []int
	// Timeout ends a program that takes longer; 0 means 24 hours.
	Timeout time.Duration
}

// VM is whose disks they are.
type VM struct {
	Name string
	Time time.Time // when they were frozen
}

// Disk is one disk.
type Disk struct {
	Name string
	FS   disk.Filesystem // for Folder and Tar
	// Content is the disk as the guest sees it, for Raw.
	Content disk.Sparse
}

// Options are the choices of [Run].
type Options struct {
	// Scratch is the folder for mount points; "" means the system's for temporary
	// files.
	Scratch string
}

// Report is what is known of a run that went well.
type Report struct {
	Duration time.Duration
	// Warnings is what could not be handed over, and what the program complained
	// of where its exit code was one of [Program.Warn]: printable lines.
	Warnings []string
}

// The errors of [Run], found with [errors.Is].
var (
	// ErrTimeout is of a program that took longer than its timeout.
	ErrTimeout = errors.New("it took too long and was ended")
	// ErrEarly is of a program that ended before it had read all of its input.
	ErrEarly = errors.New("it ended well before it had read all of its input")
)

// Error is of a program that did not do its work.
type Error struct {
	Program string
	Disk    string // whose input it was; "" for [Folder]
	Output  string // the end of what it printed, printable
	Err     error
}

func (e *Error) Error() string {
	text := "program " + e.Program
	if e.Disk != "" {
		text += ", disk " + e.Disk
	}
	text += ": " + e.Err.Error()
	if e.Output != "" {
		text += ": " + strings.ReplaceAll(e.Output, "\n", "; ")
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// defaultTimeout bounds a program: it must have ended before the next night's.
const defaultTimeout = 24 * time.Hour

// Run hands the disks to a program, and waits until it has ended.
func Run(ctx context.Context, p Program, vm VM, disks []Disk, o Options) (*Report, error) {
	if p.Timeout == 0 {
		p.Timeout = defaultTimeout
	}
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, p.Timeout, fmt.Errorf("%w: its timeout is %v", ErrTimeout, p.Timeout))
	defer cancel()
	r := &run{program: p, vm: vm, scratch: o.Scratch, report: new(Report)}
	var err error
	switch p.Input {
	case Folder:
		err = r.folder(ctx, disks)
	case Tar:
		err = r.each(ctx, disks, r.tar)
	case Raw:
		err = r.each(ctx, disks, r.raw)
	default:
		err = fmt.Errorf("program %s: there is no input %q (only %s, %s and %s)", p.Name, p.Input, Folder, Tar, Raw)
	}
	if err != nil {
		return nil, err
	}
	r.report.Duration = time.Since(start)
	return r.report, nil
}

// run is one run.
type run struct {
	program Program
	vm      VM
	scratch string
	report  *Report
}

// each runs the program for one disk after the other.
func (r *run) each(ctx context.Context, disks []Disk, feed func(context.Context, Disk) error) error {
	for _, d := range disks {
		if err := feed(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// timeLayout is RFC 3339 in UTC, without the colons that archive and file names
// give another meaning.
const timeLayout = "2006-01-02T15-04-05Z"

// args returns the command line for a disk.
func (r *run) args(disk string) []string {
	pairs := []string{"{vm}", r.vm.Name, "{time}", r.vm.Time.UTC().Format(timeLayout)}
	if disk != "" {
		pairs = append(pairs, "{disk}", disk)
	}
	replacer := strings.NewReplacer(pairs...)
	args := slices.Clone(r.program.Args)
	for i := range args {
		args[i] = replacer.Replace(args[i])
	}
	return args
}
