package trial_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/trial"
)

// TestNoWayOut: what is written in a way that is not read at first sight is refused too.
func TestNoWayOut(t *testing.T) {
	for _, command := range []string{
		"-drive if=none,id=x,driver=file,filename=/srv/other.raw",
		"-drive if=none,id=x,driver=raw,file.driver=raw,file.file.filename=/srv/other.raw",
		"-drive if=none,id=x,driver=nbd,host=10.0.0.1,port=1",
		"-drive if=none,id=x,file.driver=nbd,file.host=10.0.0.1",
		"-drive if=none,id=x,driver=vvfat,dir=/srv,rw=on",
		"-drive if=none,id=x,file=fat:rw:/srv",
		"-drive if=none,id=x,readonly=on,file=fat:/srv",
		"-drive if=none,id=x,readonly=on,file=nbd:10.0.0.1:1",
		"-drive if=none,id=x,readonly=on,file=json:{\"driver\":\"nbd\"}",
		"-drive media=cdrom,file=http://10.0.0.1/cd.iso",
		"-drive if=none,id=x,readonly=on,file=/srv/x,backing.driver=nbd,backing.host=10.0.0.1",
		"-cdrom http://10.0.0.1/cd.iso",
		"-cdrom fat:/srv",
		"-hdb json:{\"driver\":\"file\",\"filename\":\"/srv/other.raw\"}",
		"-blockdev driver=throttle,node-name=x,throttle-group=g,file.driver=file,file.filename=/srv/other.raw",
		"-blockdev driver=throttle,node-name=x,throttle-group=g,file.driver=raw,file.file.driver=file,file.file.filename=/srv/web,,1.qcow2",
		`-blockdev {"driver":"throttle","node-name":"x","throttle-group":"g","file":{"driver":"raw","file":{"driver":"file","filename":"/srv/other.raw"}}}`,
		"-blockdev driver=qcow2,node-name=x,file=f,data-file.driver=file,data-file.filename=/srv/other.raw",
		"-blockdev driver=raw,read-only=on,node-name=x,file.driver=file,file.filename=/srv/x,backing.driver=nbd,backing.server.host=10.0.0.1",
		"-usbdevice disk:/srv/other.raw",
		"-usbdevice host:1.2",
		"-usbdevice braille",
		"-icount shift=auto,rr=record,rrfile=/srv/other.raw",
		"-machine q35,dumpdtb=/srv/other.raw",
		"-device virtio-net-pci,driver=vfio-pci",
		"--virtfs=local,path=/",
		"---hdb /srv/other.raw",
	} {
		got, err := rewrite("qemu -hda /srv/web,1.qcow2 " + command)
		if !errors.Is(err, trial.ErrCommand) {
			t.Errorf("%s: %v, %q", command, err, got.Command)
		}
	}
}

// TestNoNetworkByDefault: QEMU gives a machine without any network option one that
// reaches everybody.
func TestNoNetworkByDefault(t *testing.T) {
	for command, want := range map[string]bool{
		"-hda /srv/web,1.qcow2": true, "-hda /srv/web,1.qcow2 -nodefaults": false, "--nodefaults -hda /srv/web,1.qcow2": false,
		"-hda /srv/web,1.qcow2 -net none": false, "-nic none -hda /srv/web,1.qcow2": false, "-netdev tap,id=n -hda /srv/web,1.qcow2": false,
	} {
		got, err := rewrite("qemu " + command)
		if err != nil || strings.HasSuffix(strings.Join(got.Command, " "), " -nic user,restrict=on") != want {
			t.Errorf("%s: %v, %q", command, err, got.Command)
		}
	}
}

// TestWrittenAsJSON: as libvirt writes it.
func TestWrittenAsJSON(t *testing.T) {
	const disk = "qemu -hda /srv/web,1.qcow2 "
	got, err := rewrite(disk+`-netdev {"type":"user","id":"n","hostfwd":[{"str":"tcp::8080-:80"}]} -audiodev {"id":"a","driver":"pa"} -netdev {"type":"tap","fd":"3","vhost":true,"id":"m"}`, "127.0.0.1:8080")
	for _, want := range []string{"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:40001-:80", "driver=none,id=a", "user,id=m,restrict=on"} {
		if err != nil || !slices.Contains(got.Command, want) {
			t.Errorf("%v, %q lacks %s", err, got.Command, want)
		}
	}
}

// TestUserIsKept: a machine that gives up root does so in a trial.
func TestUserIsKept(t *testing.T) {
	got, err := rewrite("qemu -hda /srv/web,1.qcow2 -nodefaults -runas nobody -run-with user=nobody -chroot /var/empty")
	if err != nil || !strings.HasSuffix(strings.Join(got.Command, " "), " -runas nobody -run-with user=nobody -chroot /var/empty") {
		t.Errorf("%v, %q", err, got.Command)
	}
}
