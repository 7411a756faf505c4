package trial_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/trial"
)

// rewrite rewrites a command whose disk is /srv/web,1.qcow2.
func rewrite(command string, asked ...string) (trial.Rewritten, error) {
	port := 40000
	return trial.Rewrite(trial.Rewriting{
		Command: strings.Split(command, " "), Disks: map[string]string{"/srv/web,1.qcow2": "/run/o,1.qcow2"}, Asked: asked,
		Port: func() (int, error) { port++; return port, nil },
		Has:  func(path string) bool { return path == "/boot/stored" },
	})
}

// TestRewrite: what becomes of each option.
func TestRewrite(t *testing.T) {
	const disk = " -drive file=/srv/web,,1.qcow2"
	const made = " -drive format=qcow2,cache=unsafe,file=/run/o,,1.qcow2"
	for name, c := range map[string]struct{ command, want string }{
		"what is kept":        {"--machine q35 -m 2G -smp 2 -enable-kvm" + disk, "-machine q35 -m 2G -smp 2 -enable-kvm" + made},
		"files that are read": {"-kernel /boot/stored -initrd /boot/initrd -dtb /boot/stored" + disk, "-kernel file-0 -initrd /boot/initrd -dtb file-0" + made},
		"what is left out":    {"-daemonize -pidfile /run/p -qmp unix:/s,server -monitor stdio -serial mon:stdio -vnc :1 -nographic -snapshot" + disk, made[1:]},
		"drive":               {"-drive if=virtio,format=raw,file=/srv/web,,1.qcow2,cache=none,aio=native,id=d,discard=unmap", "-drive if=virtio,id=d,discard=unmap,format=qcow2,cache=unsafe,file=/run/o,,1.qcow2"},
		"drive, dotted":       {"-drive if=none,id=d,driver=qcow2,file.driver=file,file.filename=/srv/web,,1.qcow2", "-drive if=none,id=d,format=qcow2,cache=unsafe,file=/run/o,,1.qcow2"},
		"its name alone":      {"/srv/web,1.qcow2", "-drive format=qcow2,index=0,media=disk,cache=unsafe,file=/run/o,,1.qcow2"},
		"hdb":                 {"-hdb file:/srv/web,1.qcow2", "-drive format=qcow2,index=1,media=disk,cache=unsafe,file=/run/o,,1.qcow2"},
		"CD and firmware": {
			disk[1:] + " -drive media=cdrom,file=/srv/cd.iso -drive if=pflash,format=raw,readonly=on,file=/usr/OVMF.fd -drive if=pflash,format=raw,file=/srv/vars.fd,unit=1",
			made[1:] + " -drive media=cdrom,file=/srv/cd.iso -drive if=pflash,format=raw,readonly=on,file=/usr/OVMF.fd -drive if=pflash,format=raw,unit=1,file=file-0",
		},
		"two nodes": {
			"-blockdev driver=file,filename=/srv/web,,1.qcow2,node-name=f,aio=native -blockdev driver=raw,file=f,node-name=d,discard=unmap",
			"-blockdev driver=file,filename=/run/o,,1.qcow2,cache.no-flush=on,node-name=f -blockdev driver=qcow2,file=f,node-name=d,discard=unmap",
		},
		"one node": {"-blockdev driver=file,filename=/srv/web,,1.qcow2,node-name=f", "-blockdev driver=qcow2,file.driver=file,file.filename=/run/o,,1.qcow2,file.cache.no-flush=on,node-name=f"},
		"JSON": {
			`-blockdev {"driver":"qcow2","node-name":"d","read-only":false,"file":{"driver":"file","filename":"/srv/web,1.qcow2"}}`,
			"-blockdev driver=qcow2,file.driver=file,file.filename=/run/o,,1.qcow2,file.cache.no-flush=on,node-name=d,read-only=off",
		},
		"pflash nodes": {
			disk[1:] + " -machine q35,pflash1=vars -blockdev driver=file,filename=/srv/vars.fd,node-name=store -blockdev driver=raw,file=store,node-name=vars",
			made[1:] + " -machine q35,pflash1=vars -blockdev driver=file,node-name=store,filename=file-0 -blockdev driver=raw,file=store,node-name=vars",
		},
		"networks": {
			disk[1:] + " -netdev tap,id=n,ifname=tap0,script=no -device virtio-net-pci,netdev=n -nic bridge,br=br0,model=e1000,mac=52:54:00:12:34:56 -net nic -net user -nic none",
			made[1:] + " -netdev user,id=n,restrict=on -device virtio-net-pci,netdev=n -nic user,model=e1000,mac=52:54:00:12:34:56,restrict=on -net nic -net user,restrict=on -nic none",
		},
		"backends": {
			disk[1:] + " -chardev socket,id=c,path=/run/c,server=on -audiodev pa,id=a -object rng-random,id=r,filename=/dev/urandom",
			made[1:] + " -chardev backend=null,id=c -audiodev driver=none,id=a -object rng-random,id=r,filename=/dev/urandom",
		},
	} {
		got, err := rewrite("qemu --nodefaults " + c.command)
		if want := "qemu -nodefaults " + c.want; err != nil || strings.Join(got.Command, " ") != want {
			t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, strings.Join(got.Command, " "), want)
		}
	}
}

// TestForward: which address answers in the place of those that probes ask.
func TestForward(t *testing.T) {
	const disk = "qemu -hda /srv/web,1.qcow2 "
	got, err := rewrite(disk+"-netdev user,id=n,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=tcp::2222-:22,guestfwd=tcp:10.0.2.9:1-cmd:id", "127.0.0.1:8080", "localhost:2222")
	if err != nil || got.Forward["127.0.0.1:8080"] != "127.0.0.1:40001" || got.Forward["localhost:2222"] != "127.0.0.1:40002" ||
		!slices.Contains(got.Command, "user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:40001-:80,hostfwd=tcp:127.0.0.1:40002-:22") {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = rewrite(disk+"-netdev bridge,id=n,br=br0", "192.168.7.3:80", "192.168.7.3:22")
	if err != nil || !slices.Contains(got.Command, "user,id=n,restrict=on,net=192.168.7.0/24,host=192.168.7.1,dns=192.168.7.4,dhcpstart=192.168.7.3,hostfwd=tcp:127.0.0.1:40001-192.168.7.3:80,hostfwd=tcp:127.0.0.1:40002-192.168.7.3:22") {
		t.Errorf("%+v, %v", got, err)
	}
	for asked, command := range map[string]string{
		"127.0.0.1:8081": "-netdev user,id=n,hostfwd=tcp:127.0.0.1:8080-:80", "web.example:80": "-netdev bridge,id=n,br=br0",
		"127.0.0.1:53": "-netdev user,id=n,hostfwd=udp:127.0.0.1:53-:53", "10.0.0.1:80": "-nic none",
	} {
		if _, err := rewrite(disk+command, asked); !errors.Is(err, trial.ErrCommand) || !strings.Contains(err.Error(), asked) {
			t.Errorf("%s of %s: %v", asked, command, err)
		}
	}
}

// TestRefused: what may reach beyond the machine is refused by name.
func TestRefused(t *testing.T) {
	for want, command := range map[string]string{
		"/srv/other.raw":      "-hda /srv/web,1.qcow2 -drive file=/srv/other.raw",
		"/srv/blockdev":       "-hda /srv/web,1.qcow2 -blockdev driver=file,filename=/srv/blockdev,node-name=x",
		"does not open /srv":  "-m 1G",
		"vfio-pci":            "-hda /srv/web,1.qcow2 -device vfio-pci,host=01:00.0",
		"usb-host":            `-hda /srv/web,1.qcow2 -device {"driver":"usb-host"}`,
		"virtio-9p-pci":       "-hda /srv/web,1.qcow2 -device virtio-9p-pci,fsdev=f",
		"vhost-user-fs-pci":   "-hda /srv/web,1.qcow2 -device vhost-user-fs-pci",
		"memory-backend-file": "-hda /srv/web,1.qcow2 -object memory-backend-file,id=m,mem-path=/dev/shm/x,share=on",
		"-virtfs":             "-hda /srv/web,1.qcow2 -virtfs local,path=/",
		"-incoming":           "-hda /srv/web,1.qcow2 -incoming tcp:0:1",
		"-S":                  "-hda /srv/web,1.qcow2 -S",
		"no JSON object":      "-hda /srv/web,1.qcow2 -blockdev {",
		"nested too deep":     "-hda /srv/web,1.qcow2 -blockdev " + strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40),
		"host_device":         "-hda /srv/web,1.qcow2 -blockdev driver=host_device,filename=/dev/sda,node-name=x",
		"nbd":                 "-hda /srv/web,1.qcow2 -blockdev driver=nbd,server.type=unix,server.path=/s,node-name=x",
		"-readconfig":         "-hda /srv/web,1.qcow2 -readconfig /etc/vm.cfg",
	} {
		if got, err := rewrite("qemu " + command); !errors.Is(err, trial.ErrCommand) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %q", want, err, got.Command)
		}
	}
}
