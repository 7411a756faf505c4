//go:build linux

// Package testguest makes the tiny guest that drydock's tests boot: a real
// kernel and a real init on real disks, ready in about 3 seconds of QEMU's
// software emulation.
//
// A guest is a stateless root disk (raw, ext4, no partitions) and a data disk
// (ext4, XFS or btrfs in qcow2 or raw) that it mounts on /var, with an agent that answers
// HTTP on a port of the host's loopback. The root disk is replaced by that of
// another version as drydock replaces it: by name, see [RootImage].
//
//	guest := testguest.New(t, testguest.Options{Name: "web", RootVersion: "v1"})
//	// start guest.Command with the driver under test, then
//	guest.WaitHealthy(ctx)
//	guest.Put(ctx, "/var/letter", []byte("dear reader"))
//
// The package starts no machine: that is the work of what is tested. It needs
// what scripts/install-deps installs, fails the test when something is
// missing, and leaves nothing behind but the built init in the cache.
package testguest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Formats of the data disk.
const (
	QCOW2 = "qcow2"
	Raw   = "raw"
)

// Options say what guest to make. The zero value makes a well-behaved guest
// named "guest" of version "v1".
type Options struct {
	// Name is that of the QEMU process and of the disk files.
	Name string
	// RootVersion is what the agent answers on /healthz.
	RootVersion string
	// Broken guests boot and react to the power button, but their service
	// never answers.
	Broken bool
	// IgnoreButton guests do not react to the power button.
	IgnoreButton bool
	// DataSize of the data disk in bytes, 64 MiB if 0, and 320 MiB of XFS and btrfs.
	DataSize int64
	// DataFilesystem of the data disk: "ext4", "xfs" or "btrfs", ext4 if empty.
	DataFilesystem string
	// DataFormat is QCOW2 or Raw, QCOW2 if empty.
	DataFormat string
	// Dir is where the disks go, a temporary folder of the test if empty.
	Dir string
}

// Guest is a guest that can be started any number of times, one at a time.
type Guest struct {
	Name string
	// RootPath is the root disk, always raw: /dev/nvme0n1 in the guest.
	RootPath string
	// DataPath is the data disk in DataFormat: /dev/nvme0n2, on /var.
	DataPath   string
	DataFormat string
	// Command starts the guest: QEMU and its arguments, but for -pidfile,
	// -qmp and -serial, which whoever starts it appends. On the serial
	// console, a line "testguest: ready VERSION" says that it is up.
	Command []string
	// Port is where the agent answers, on the host's 127.0.0.1. QEMU accepts
	// connections there from its own start on, so an accepted connection
	// alone does not say that the guest is healthy.
	Port int
}

// New makes the disks of a guest and finds a port for it.
func New(t testing.TB, o Options) *Guest {
	t.Helper()
	if o.Name == "" {
		o.Name = "guest"
	}
	if o.RootVersion == "" {
		o.RootVersion = "v1"
	}
	if o.DataFormat == "" {
		o.DataFormat = QCOW2
	}
	if o.DataFilesystem == "" {
		o.DataFilesystem = "ext4"
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	guest := &Guest{
		Name:       o.Name,
		RootPath:   filepath.Join(o.Dir, o.Name+".root.raw"),
		DataPath:   filepath.Join(o.Dir, o.Name+".data."+o.DataFormat),
		DataFormat: o.DataFormat,
		Port:       reservePort(t),
	}
	makeRoot(t, guest.RootPath, root{version: o.RootVersion, broken: o.Broken, ignoreButton: o.IgnoreButton, data: o.DataFilesystem})
	makeData(t, guest.DataPath, o)
	guest.Command = command(t, guest)
	return guest
}

// RootImage makes a root disk of the given version and returns its path, for
// the image store to import. The file is raw and made for this call alone.
func RootImage(t testing.TB, version string, broken bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), version+".raw")
	makeRoot(t, path, root{version: version, broken: broken, data: "ext4"})
	return path
}

func command(t testing.TB, g *Guest) []string {
	t.Helper()
	return []string{
		"qemu-system-x86_64", "-name", g.Name, "-nodefaults", "-display", "none",
		"-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "192",
		"-kernel", filepath.Join(KernelFolder(t), "vmlinuz"),
		"-append", kernelLine("/dev/nvme0n1"),
		"-no-reboot",
		// One controller for both disks: two would race for their names.
		"-drive", "if=none,id=root,format=raw,file=" + quoteComma(g.RootPath),
		"-drive", "if=none,id=data,format=" + g.DataFormat + ",discard=unmap,file=" + quoteComma(g.DataPath),
		"-device", "nvme,id=nvme,serial=drydock",
		"-device", "nvme-ns,drive=root,nsid=1", "-device", "nvme-ns,drive=data,nsid=2",
		"-netdev", fmt.Sprintf("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:%d-:80", g.Port),
		"-device", "virtio-net-pci,netdev=net,romfile=",
	}
}

// kernelLine is the kernel's command line, for a root filesystem on a device.
func kernelLine(root string) string {
	return "root=" + root + " ro init=/init console=ttyS0 quiet panic=-1 no_timer_check mitigations=off"
}

// quoteComma doubles the commas of a value, as QEMU's option syntax asks.
func quoteComma(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// defaultDataSize is enough for some thousand small files, and smallest for an XFS.
const (
	defaultDataSize = 64 << 20
	smallest        = 320 << 20
)

func makeData(t testing.TB, path string, o Options) {
	t.Helper()
	size := o.DataSize
	if size == 0 && o.DataFilesystem == "ext4" {
		size = defaultDataSize
	} else if size == 0 {
		size = smallest
	}
	raw := path
	if o.DataFormat == QCOW2 {
		raw = path + ".raw"
		defer os.Remove(raw)
	}
	makeFilesystem(t, raw, o.DataFilesystem, "data", size, "")
	if o.DataFormat == QCOW2 {
		run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path)
	}
}

// makeFilesystem makes a filesystem that fills a new file of size bytes, an ext4 with the
// tree below folder in it if folder is not empty.
func makeFilesystem(t testing.TB, path, fstype, label string, size int64, folder string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if fstype != "ext4" {
		run(t, "mkfs."+fstype, "-q", "-L", label, path)
		return
	}
	arguments := []string{"-q", "-F", "-t", "ext4", "-L", label, "-E", "root_owner=0:0"}
	if folder != "" {
		arguments = append(arguments, "-d", folder)
	}
	run(t, "mke2fs", append(arguments, path)...)
}

// run runs a program to its end, and fails the test when the program does.
func run(t testing.TB, name string, arguments ...string) {
	t.Helper()
	output, err := exec.CommandContext(context.Background(), name, arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s(scripts/install-deps test installs what the tests need)",
			name, strings.Join(arguments, " "), err, output)
	}
}
