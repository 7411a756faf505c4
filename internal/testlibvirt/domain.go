//go:build linux

package testlibvirt

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// PassThrough is the XML of a domain whose QEMU gets the arguments of a command line,
// but for those that libvirt gives it itself: the command line of a test's guest, since
// libvirt has no NVMe disks.
func PassThrough(name string, command []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>%s</name><memory unit='MiB'>256</memory>
<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features><cpu mode='maximum'/>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices><qemu:commandline>`, name)
	args := command[1:]
	for i := 0; i < len(args); i++ {
		if slices.Contains([]string{"-name", "-machine", "-accel", "-cpu", "-m", "-display"}, args[i]) {
			i++
			continue
		}
		if args[i] == "-nodefaults" {
			continue
		}
		arg := args[i]
		for at, device := range []string{"nvme,", "virtio-net-pci,"} { // out of the way of libvirt's own
			if strings.HasPrefix(arg, device) {
				arg += fmt.Sprintf(",addr=%#x", 0x10+at)
			}
		}
		fmt.Fprintf(&b, "<qemu:arg value='%s'/>", html.EscapeString(arg))
	}
	b.WriteString("</qemu:commandline></domain>")
	return b.String()
}
