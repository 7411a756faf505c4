//go:build linux

package libvirt

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/digitalocean/go-libvirt"

	"github.com/drydock-vm/drydock/internal/vm"
)

// user is who runs the domain's QEMU, which is in its XML or holds for all domains.
func (d *domain) user(text string) (string, error) {
	type label struct {
		Model string `xml:"model,attr"`
		Label string `xml:"label"`
	}
	var has struct {
		Labels []label `xml:"seclabel"`
	}
	var host struct {
		Models []struct {
			Model  string   `xml:"model"`
			Labels []string `xml:"baselabel"`
		} `xml:"host>secmodel"`
	}
	general, err := d.conn.ConnectGetCapabilities()
	if err != nil {
		return "", fmt.Errorf("ask who runs QEMU: %w", err)
	}
	if err := errors.Join(xml.Unmarshal([]byte(text), &has), xml.Unmarshal([]byte(general), &host)); err != nil {
		return "", fmt.Errorf("read who runs QEMU: %w", err)
	}
	for _, m := range host.Models {
		if len(m.Labels) > 0 {
			has.Labels = append(has.Labels, label{m.Model, m.Labels[0]})
		}
	}
	for _, l := range has.Labels {
		if l.Model == "dac" && l.Label != "" {
			user, _, _ := strings.Cut(l.Label, ":")
			return strings.TrimPrefix(user, "+"), nil // + is in front of a number
		}
	}
	return "", nil
}

// Definition names the file in which libvirt keeps the domain's XML, with the secrets
// that are in it, and the command line that it would start QEMU with, but for what it would control
// that by.
func (m *Machine) Definition(ctx context.Context) (vm.Definition, error) {
	d := vm.Definition{Files: []string{m.file()}}
	err := m.with(ctx, "definition", func(dom *domain) error {
		text, err := dom.conn.DomainGetXMLDesc(dom.dom, libvirt.DomainXMLInactive|libvirt.DomainXMLSecure)
		if err != nil {
			return fmt.Errorf("ask for its XML: %w", err)
		}
		line, err := dom.conn.ConnectDomainXMLToNative("qemu-argv", text, 0)
		if err != nil {
			return fmt.Errorf("ask for its command line: %w", err)
		}
		if d.Command, err = command(line); err != nil {
			return err
		}
		d.User, err = dom.user(text)
		return err
	})
	return d, err
}

func (m *Machine) file() string { return filepath.Join(Folder, m.o.Domain+".xml") }

// Reload has libvirt read the file of the domain again, as it must when the file is new.
func (m *Machine) Reload(ctx context.Context) error {
	text, err := os.ReadFile(m.file())
	if err != nil {
		return m.fail("define", err)
	}
	return m.fail("define", m.connected(ctx, func(conn *libvirt.Libvirt) error {
		if _, err := conn.DomainDefineXMLFlags(string(text), libvirt.DomainDefineValidate); err != nil {
			return vm.WithHint(fmt.Errorf("define the domain of %s: %w", m.file(), err), "a device of the old host may be missing here: edit the file, and virsh define it")
		}
		return nil
	}))
}

// command reads a command line as libvirt writes it for a shell, and leaves out the
// environment in front.
func command(line string) ([]string, error) {
	words, err := split(line)
	if err != nil {
		return nil, err
	}
	for len(words) > 0 && !strings.HasPrefix(words[0], "/") && strings.Contains(words[0], "=") {
		words = words[1:]
	}
	if len(words) == 0 {
		return nil, errors.New("libvirt gave an empty command line")
	}
	return withoutControl(words), nil
}

// withoutControl leaves out what libvirt controls a QEMU by that it has started itself:
// with it, the QEMU would wait for libvirt before it executes anything.
func withoutControl(words []string) []string {
	var out []string
	for i := 0; i < len(words); i++ {
		if words[i] == "-S" || words[i] == "-no-shutdown" {
			continue
		}
		if i+1 < len(words) && slices.ContainsFunc([][2]string{
			{"-object", `"id":"masterKey0"`}, {"-object", "id=masterKey0"},
			{"-chardev", "id=charmonitor"}, {"-mon", "chardev=charmonitor"},
		}, func(known [2]string) bool { return words[i] == known[0] && strings.Contains(words[i+1], known[1]) }) {
			i++
			continue
		}
		out = append(out, words[i])
	}
	return out
}

// split splits what libvirt has quoted: a word with anything but letters and a few
// signs in it stands in single quotes, and a
// single quote in them is written as their end, \', and their beginning
// (virBufferEscapeShell).
// A backslash before the end of a line continues it.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	quoted, open := false, false // within quotes; within a word
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\'':
			quoted, open = !quoted, true
		case quoted:
			word.WriteByte(c)
		case c == '\\' && i+1 < len(line):
			if i++; line[i] != '\n' {
				word.WriteByte(line[i])
				open = true
			}
		case c == ' ' || c == '\n' || c == '\t':
			if open {
				words = append(words, word.String())
				word.Reset()
			}
			open = false
		default:
			word.WriteByte(c)
			open = true
		}
	}
	if quoted {
		return nil, errors.New("libvirt gave a command line with a quote that does not end")
	}
	if open {
		words = append(words, word.String())
	}
	return words, nil
}
