package config

import (
	"fmt"
	"strings"
)

// BootProof is when rounds start VMs from their newest backup.
type BootProof struct {
	// Every is the time from one proof of a VM to its next.
	Every Duration `yaml:"every" jsonschema:"default=168h"`
}

// Boot is how this VM is started from a backup, apart from the world.
type Boot struct {
	// Skip leaves the VM out of what rounds prove.
	Skip bool `yaml:"skip,omitempty"`
	// Timeout is when the health probes must have passed, counted from the start.
	Timeout Duration `yaml:"timeout" jsonschema:"default=5m"`
	// Command is the command line in the place of the VM's own. It is rewritten in
	// the same way: it names the disks by the paths of the configuration.
	Command []string `yaml:"command,omitempty"`
}

// BootTimeout is Boot.Timeout of a VM that has no boot.
const BootTimeout = 300_000_000_000 // 5m, in nanoseconds

func (r *reader) checkBoot(key string, b *Boot) {
	if b == nil {
		return
	}
	if b.Timeout == 0 {
		r.problem(key+".timeout", "must be longer than 0s", "skip: true leaves the VM out")
	}
	for i, arg := range b.Command {
		if strings.ContainsRune(arg, 0) {
			r.problem(fmt.Sprintf("%s.command[%d]", key, i), "has a NUL byte in it", "")
		}
	}
}
