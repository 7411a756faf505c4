package guest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/drydock-vm/drydock/internal/build"
)

// baseImage is what a Containerfile calls localhost/debian-web.
const baseImage = "debian-web"

func (m *maker) makeWeb(ctx context.Context, archive string) (Machine, error) {
	tree, err := m.unpack(ctx, "web", archive, "app.service")
	if err != nil {
		return Machine{}, err
	}
	if err := writeFile(filepath.Join(tree, "etc/image-version"), []byte(FirstVersion+"\n"), 0o644); err != nil {
		return Machine{}, err
	}
	data, err := m.splitVar(tree)
	if err != nil {
		return Machine{}, err
	}
	if err := fillArchive(filepath.Join(data, "lib/app/archive")); err != nil {
		return Machine{}, err
	}
	m.say("web: making its disks, and its root filesystem a base image")
	if err := m.makeBase(ctx, tree); err != nil {
		return Machine{}, err
	}
	port, err := freePort()
	if err != nil {
		return Machine{}, err
	}
	web := Machine{Name: "web", Port: port, Disks: []Disk{
		{Name: "root", Path: filepath.Join(m.Dir, "web.root.qcow2"), Format: "qcow2", Mount: "/"},
		{Name: "data", Path: filepath.Join(m.Dir, "web.data.qcow2"), Format: "qcow2", Mount: "/var"},
	}}
	web.Command = m.command(web, "-m", "256",
		"-netdev", fmt.Sprintf("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:%d-:80", port),
		"-device", "virtio-net-pci,netdev=net,romfile=")
	return web, errors.Join(
		m.filesystem(ctx, web.Disks[0], rootSize, tree),
		m.filesystem(ctx, web.Disks[1], dataSize, data))
}

func (m *maker) makeBuilder(ctx context.Context, archive string) (Machine, error) {
	m.say("builder: making its disks")
	tree, err := m.unpack(ctx, "builder", archive, "builder-ready.service", "drydock-build.service")
	if err != nil {
		return Machine{}, err
	}
	if err := copyFile(m.Drydock, filepath.Join(tree, "usr/local/bin/drydock"), 0o755); err != nil {
		return Machine{}, err
	}
	bases := filepath.Join(tree, "usr/share/drydock/base")
	if err := os.MkdirAll(bases, 0o755); err != nil {
		return Machine{}, err
	}
	if err := os.Rename(filepath.Join(m.work, baseImage), filepath.Join(bases, baseImage)); err != nil {
		return Machine{}, err
	}
	data, err := m.splitVar(tree)
	if err != nil {
		return Machine{}, err
	}
	// Where the output disk is mounted.
	if err := os.MkdirAll(filepath.Join(data, "lib/drydock-build"), 0o755); err != nil {
		return Machine{}, err
	}
	builder := Machine{Name: "builder", Disks: []Disk{
		{Name: "root", Path: filepath.Join(m.Dir, "builder.root.qcow2"), Format: "qcow2", Mount: "/"},
		{Name: "data", Path: filepath.Join(m.Dir, "builder.data.qcow2"), Format: "qcow2", Mount: "/var"},
		{Name: "output", Path: filepath.Join(m.Dir, "builder.output.qcow2"), Format: "qcow2", Mount: "/var/lib/drydock-build"},
		{Name: "spec", Path: filepath.Join(m.Dir, "builder.spec.raw"), Format: "raw"},
	}}
	builder.Command = m.command(builder, "-m", "1024", "-nic", "none")
	return builder, errors.Join(
		m.filesystem(ctx, builder.Disks[0], 2*rootSize, tree),
		m.filesystem(ctx, builder.Disks[1], dataSize, data),
		m.filesystem(ctx, builder.Disks[2], outputSize, ""),
		createSized(builder.Disks[3].Path, specSize))
}

// makeBase makes web's root tree the base image of its next version.
func (m *maker) makeBase(ctx context.Context, tree string) error {
	arguments := asRoot("tar", "--create", "--directory", tree, "--sort=name", "--numeric-owner",
		"--xattrs", "--xattrs-include=*", "--format=posix",
		"--pax-option=delete=atime,delete=ctime", ".")
	command := exec.CommandContext(ctx, arguments[0], arguments[1:]...)
	output, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	err = build.MakeBase(ctx, filepath.Join(m.work, baseImage), output)
	output.Close()
	return errors.Join(err, command.Wait())
}

// fillArchive gives web's data disk something to back up: the same in each
// demo.
func fillArchive(folder string) error {
	const files, size = 120, 128 << 10
	content := rand.NewChaCha8([32]byte([]byte("drydock demo: the web's archive.")))
	for i := range files {
		data := make([]byte, size)
		if _, err := content.Read(data); err != nil {
			return err
		}
		path := filepath.Join(folder, fmt.Sprintf("%d/page-%03d.bin", 2020+i/20, i))
		if err := writeFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// command is the QEMU command of a machine. All disks are namespaces of one
// NVMe controller: its driver is built into the kernel, and their names do not
// depend on the order of discovery.
func (m *maker) command(machine Machine, rest ...string) []string {
	command := []string{
		"qemu-system-x86_64", "-name", machine.Name, "-nodefaults", "-display", "none",
		"-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
		"-kernel", m.kernel.image(),
		"-append", "root=/dev/nvme0n1 ro console=ttyS0 quiet panic=-1 no_timer_check mitigations=off net.ifnames=0",
		"-no-reboot",
		"-device", "nvme,id=nvme,serial=drydock",
	}
	for i, disk := range machine.Disks {
		drive := fmt.Sprintf("if=none,id=%s,format=%s,file=%s", disk.Name, disk.Format, strings.ReplaceAll(disk.Path, ",", ",,"))
		if disk.Mount == "" {
			drive += ",readonly=on"
		} else {
			drive += ",discard=unmap"
		}
		command = append(command, "-drive", drive,
			"-device", fmt.Sprintf("nvme-ns,drive=%s,nsid=%d", disk.Name, i+1))
	}
	return append(command, rest...)
}

// Ports are taken from below the range from which Linux takes those of outgoing
// connections (32768), so that the port stays free while web is down.
const (
	firstPort = 24000
	portCount = 4000
)

func freePort() (int, error) {
	for range portCount {
		port := firstPort + rand.IntN(portCount)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, listener.Close()
		}
	}
	return 0, errors.New("no port of 127.0.0.1 is free")
}
