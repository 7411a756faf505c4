//go:build linux

// Package unit makes the unit files that run drydock by itself: a timer that
// starts a round, the round's service, a service that recovers at boot before
// the VMs start, a timer and a service that look for missing backups whether or not
// rounds run, and a drop-in that lets the builder's own unit start only when a build
// is due.
//
// [Files] makes them from a few options and touches nothing. [Install] and
// [Remove] write and remove them below a root folder. A file is drydock's if it
// begins with a certain line; no other file is ever replaced or removed, and
// after Remove nothing is left. systemd has to be told with [Activate] and
// [Deactivate].
//
// The files are for systemd 243 (2019) and newer.
package unit

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// The units that are written.
const (
	Timer      = "drydock.timer"
	Service    = "drydock.service"
	Recover    = "drydock-recover.service"
	CheckTimer = "drydock-check.timer"
	Check      = "drydock-check.service"

	dir    = "etc/systemd/system"
	dropIn = "10-drydock.conf"
)

// header is the first line of all that drydock writes, and of nothing else.
const header = "# Written by drydock systemd install, which overwrites it; drydock systemd remove removes it.\n"

// Options say what the units are to run.
type Options struct {
	// Executable is the absolute path of drydock. systemd takes no quotation
	// marks and no backslash in it.
	Executable string
	// ConfigPath is the absolute path of its configuration.
	ConfigPath string
	// Schedule is when the rounds start, as OnCalendar= has it
	// (systemd.time(7)).
	Schedule string
	// VMUnits are the VMs that are services, which a recovery at boot comes
	// before.
	VMUnits []string
	// BuilderUnit is the builder VM's service, and BuilderVM its name in the
	// configuration. Both are empty if the builder is no service, or if there
	// is none.
	BuilderUnit, BuilderVM string
	// Libvirt says that there are VMs of libvirt: its daemon comes before a recovery.
	Libvirt bool
	// OnlyUnits says that all VMs are services, or libvirt's, so that drydock itself
	// starts no QEMU. Only then its services can be confined: a QEMU that it starts
	// would be confined as well.
	OnlyUnits bool
}

// File is a file, or a link if Link is not empty.
type File struct {
	// Path is relative to the root, as "etc/systemd/system/drydock.timer".
	Path string
	// Content begins with drydock's line.
	Content string
	// Link is what a link points to.
	Link string
}

// Files makes the files for o, in the order of their paths.
func Files(o Options) ([]File, error) {
	e, err := o.escape()
	if err != nil {
		return nil, err
	}
	var files []File
	if e.builderUnit != "" {
		files = append(files, file(e.builderUnit+".d/"+dropIn, builderText(e)))
	}
	return append(files,
		file(Check, checkText(e)),
		file(CheckTimer, checkTimerText()),
		file(Recover, recoverText(e)),
		file(Service, serviceText(e)),
		file(Timer, timerText(e)),
		link("multi-user.target.wants", Recover),
		link("timers.target.wants", CheckTimer),
		link("timers.target.wants", Timer),
	), nil
}

func file(name, text string) File {
	return File{Path: filepath.Join(dir, name), Content: header + text}
}

// link is what systemctl enable would make.
func link(target, name string) File {
	return File{Path: filepath.Join(dir, target, name), Link: "../" + name}
}

// Format shows files as text, each below its path.
func Format(files []File) string {
	var b strings.Builder
	for i, f := range files {
		if i > 0 {
			b.WriteByte('\n')
		}
		if f.Link != "" {
			fmt.Fprintf(&b, "# /%s -> %s\n", f.Path, f.Link)
			continue
		}
		fmt.Fprintf(&b, "# /%s\n%s", f.Path, f.Content)
	}
	return b.String()
}

// escaped are the options as a unit file has to have them.
type escaped struct {
	command     string // drydock and its configuration
	schedule    string
	vmUnits     string
	builderUnit string
	builderVM   string
	libvirt     bool
	onlyUnits   bool
}

var (
	unitName = regexp.MustCompile(`^[A-Za-z0-9:_.@\\-]{1,240}\.service$`)
	// vmName is what a VM can be called in the configuration.
	vmName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
)

func (o Options) escape() (escaped, error) {
	for _, path := range []string{o.Executable, o.ConfigPath} {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path || !printable(path) {
			return escaped{}, fmt.Errorf("%q cannot be in a unit file (give a clean absolute path without control characters)", path)
		}
	}
	if strings.ContainsAny(o.Executable, "\"'\\") {
		return escaped{}, fmt.Errorf("systemd does not run a program of the name %q (put drydock at a path without quotation marks and backslashes)", o.Executable)
	}
	if strings.TrimSpace(o.Schedule) == "" || !printable(o.Schedule) || strings.Contains(o.Schedule, `\`) {
		return escaped{}, fmt.Errorf(`%q cannot be a schedule (write it like "*-*-* 02:30:00")`, o.Schedule)
	}
	if (o.BuilderUnit == "") != (o.BuilderVM == "") {
		return escaped{}, fmt.Errorf("the builder's unit is %q and its VM is %q: give both or none", o.BuilderUnit, o.BuilderVM)
	}
	units := o.VMUnits
	if o.BuilderUnit != "" {
		if !vmName.MatchString(o.BuilderVM) {
			return escaped{}, fmt.Errorf("%q cannot be the name of a VM", o.BuilderVM)
		}
		units = append(units[:len(units):len(units)], o.BuilderUnit)
	}
	for _, name := range units {
		if !unitName.MatchString(name) {
			return escaped{}, fmt.Errorf("%q cannot be the unit of a VM (it must be a NAME.service)", name)
		}
	}
	return escaped{
		command:     program(o.Executable) + " --config " + argument(o.ConfigPath),
		schedule:    strings.ReplaceAll(o.Schedule, "%", "%%"),
		vmUnits:     words(o.VMUnits, o.BuilderUnit),
		builderUnit: o.BuilderUnit,
		builderVM:   o.BuilderVM,
		libvirt:     o.Libvirt,
		onlyUnits:   o.OnlyUnits,
	}, nil
}
