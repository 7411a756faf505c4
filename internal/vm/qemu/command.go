//go:build linux

package qemu

import (
	"errors"
	"fmt"
	"strings"
)

// refused are the options of QEMU that a command cannot have, and why.
var refused = map[string]string{
	"daemonize": "drydock starts QEMU in the background itself: leave it out",
	"pidfile":   "drydock keeps a pidfile of its own: leave it out",
	"S":         "the guest would not execute after a start: leave it out",
	"preconfig": "the guest would not execute after a start: leave it out",
	"incoming":  "the guest would wait for a migration: leave it out",
	"snapshot":  "what the guest writes would be thrown away: leave it out",

	"no-shutdown": "QEMU would stay when its guest has powered off: leave it out",
}

// commandLine is what drydock has to know of a user's command.
type commandLine struct {
	name    bool // it gives the machine a name
	display bool // it says where the display goes
	serial  bool // it says where the first serial port goes
}

// scan looks for the options that matter to drydock. QEMU takes each with one
// dash or with two.
func scan(command []string) (commandLine, error) {
	var line commandLine
	if len(command) == 0 || command[0] == "" {
		return line, errors.New("the command is empty (give QEMU and its arguments: [qemu-system-x86_64, …])")
	}
	for i, arg := range command {
		if strings.ContainsRune(arg, 0) {
			return line, fmt.Errorf("argument %d of the command has a NUL byte in it", i)
		}
		option, ok := strings.CutPrefix(arg, "-")
		if i == 0 || !ok {
			continue
		}
		option = strings.TrimPrefix(option, "-")
		if why, ok := refused[option]; ok {
			return line, fmt.Errorf("%s cannot be in the command (%s)", arg, why)
		}
		switch option {
		case "name":
			line.name = true
		case "display", "vnc", "spice", "curses":
			line.display = true
		case "nographic":
			line.display, line.serial = true, true
		case "serial":
			line.serial = true
		}
	}
	return line, nil
}

// The chardevs that drydock adds.
const (
	qmpChardev     = "drydock-qmp"
	consoleChardev = "drydock-console"
)

// additions are the arguments that drydock appends. The names of files in the
// runtime folder are relative to it, since the address of a Unix socket is
// short.
func (l commandLine) additions(name, console string) []string {
	args := []string{
		"-pidfile", pidFile,
		"-chardev", "socket,id=" + qmpChardev + ",path=" + qmpSocket + ",server=on,wait=off",
		"-mon", "chardev=" + qmpChardev + ",mode=control",
	}
	if !l.name {
		args = append(args, "-name", "guest="+name)
	}
	if !l.display {
		args = append(args, "-display", "none")
	}
	if console != "" {
		args = append(args,
			"-chardev", "file,id="+consoleChardev+",append=on,path="+strings.ReplaceAll(console, ",", ",,"),
			"-serial", "chardev:"+consoleChardev)
	}
	return args
}
