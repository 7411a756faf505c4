//go:build linux

package qemu

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/drydock-vm/drydock/internal/escape"
)

const (
	// maxTail is how much of QEMU's own words is looked at, in bytes.
	maxTail = 4 << 10
	// maxLines is how many lines of them an error shows.
	maxLines = 4
)

// hints says what to do about what QEMU prints when it gives up. QEMU has no
// other way to say why; nothing but the hint depends on these words.
var hints = []struct{ words, hint string }{
	{"another process using the image", "another process uses that disk image: stop it, it may be the same VM started by hand"},
	{"Address already in use", "another program uses that port: choose another one, or stop it"},
	{"Could not set up host forwarding rule", "another program uses that port: choose another one, or stop it"},
	{"Could not access KVM kernel module", "this host has no KVM: load kvm_intel or kvm_amd, or have -accel tcg in command"},
	{"cannot set up guest memory", "the host has too little free memory for -m"},
	{"Permission denied", "look at the permissions of the files in command"},
	{"No such file or directory", "a file in command is not there: paths have to be absolute"},
	{"invalid option", "look for a misspelt option in command"},
	{"is not a valid device model name", "this QEMU lacks a device that command asks for"},
}

// explain says why QEMU gave up, in its own words from mark of the log on.
func (m *Machine) explain(err error, mark int64) error {
	words := m.said(mark)
	hint := "see " + m.logPath()
	for _, h := range hints {
		if strings.Contains(words, h.words) {
			hint = h.hint
			break
		}
	}
	if words != "" {
		err = fmt.Errorf("%w: %s", err, words)
	}
	return m.fail("start", err, hint)
}

// said returns the last lines that QEMU printed from mark of the log on, as one
// safe line.
func (m *Machine) said(mark int64) string {
	f, err := os.Open(m.logPath())
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	mark = max(mark, info.Size()-maxTail)
	text, err := io.ReadAll(io.NewSectionReader(f, mark, maxTail))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	lines = lines[max(0, len(lines)-maxLines):]
	for i, line := range lines {
		lines[i] = escape.Line(strings.TrimSpace(line))
	}
	return strings.Join(lines, "; ")
}
