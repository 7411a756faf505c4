//go:build linux

package testlibvirt

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// Disk is a qcow2 image that libvirt gives a domain as a virtio disk.
type Disk struct {
	ID   string // of the drive in the command line that it stands for
	Path string
}

// PassThrough is the XML of a domain whose QEMU gets the arguments of a command line,
// but for those that libvirt gives it itself: the command line of a test's guest, since
// libvirt has no NVMe disks. Those of its disks that are own are libvirt's.
func PassThrough(name string, command []string, own ...Disk) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>%s</name><memory unit='MiB'>256</memory>
<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features><cpu mode='maximum'/>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>`, name)
	for i, d := range own {
		fmt.Fprintf(&b, "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='%s'/><target dev='vd%c' bus='virtio'/></disk>", html.EscapeString(d.Path), 'a'+i)
	}
	b.WriteString("</devices><qemu:commandline>")
	args := command[1:]
	for i := 0; i < len(args); i++ {
		if slices.Contains([]string{"-name", "-machine", "-accel", "-cpu", "-m", "-display"}, args[i]) {
			i++
			continue
		}
		if args[i] == "-nodefaults" {
			continue
		}
		if i+1 < len(args) && slices.ContainsFunc(own, func(d Disk) bool {
			return strings.Contains(args[i+1], "id="+d.ID+",") || strings.Contains(args[i+1], "drive="+d.ID+",")
		}) {
			i++
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
