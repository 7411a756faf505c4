package trial

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// ErrCommand is of a command that cannot be rewritten. The error names the option.
var ErrCommand = errors.New("the VM's command cannot be run apart from the world")

// Rewriting is what [Rewrite] is to do.
type Rewriting struct {
	Command []string
	// Disks are the images that the command opens, and what it shall open instead:
	// qcow2 images.
	Disks map[string]string
	// Asked are the addresses, HOST:PORT, that the probes ask.
	Asked []string
	// Has reports whether the backup has a file of the host's, as a kernel; nil is
	// none. It is copied then.
	Has func(path string) bool
	// Folder is that of the copies.
	Folder string
	// Port finds a port of 127.0.0.1 that is free.
	Port func() (int, error)
}

// Rewritten is a command that touches nothing of the VM's.
type Rewritten struct {
	Command []string
	// Forward says which address answers in the place of one that is asked.
	Forward map[string]string
	// Copies are files that the command writes to, or that the backup has: from path
	// to path.
	Copies map[string]string
}

// What becomes of QEMU's options. Those that are in none of the lists and have no
// case in [rewriter.option] are refused.
var (
	kept = strings.Fields(`name machine M accel cpu m smp numa boot append L rtc global
		smbios uuid k overcommit vga fw_cfg sandbox msg watchdog-action action acpitable icount
		runas run-with chroot`)
	keptAlone = strings.Fields(`nodefaults no-user-config enable-kvm no-hpet no-acpi no-reboot no-fd-bootchk
		win2k-hack usb only-migratable enable-sync-profile`)
	dropped      = strings.Fields(`pidfile qmp qmp-pretty mon monitor serial parallel debugcon display vnc spice D d trace`)
	droppedAlone = strings.Fields(`daemonize snapshot nographic curses full-screen no-shutdown no-quit`)
	// read are options whose value is a file that is read.
	read = strings.Fields(`kernel initrd dtb bios`)
	// writing are settings of options that are kept with which QEMU writes a file.
	writing = map[string][]string{"icount": {"rr", "rrfile"}, "machine": {"dumpdtb"}, "M": {"dumpdtb"}}
	// usbDevices are the values of -usbdevice that need nothing of the host's.
	usbDevices = strings.Fields("tablet mouse keyboard wacom-tablet")
	// whole are options whose value is a disk image.
	whole = map[string]int{"hda": 0, "hdb": 1, "hdc": 2, "hdd": 3}
)

// devices are the models of devices that need nothing of the host's.
var devices = strings.Fields(`virtio-* nvme nvme-ns nvme-subsys ide-* scsi-hd scsi-cd scsi-disk ahci ich9-* pcie-* pci-bridge pci-ohci
	pxb* usb-tablet usb-mouse usb-kbd usb-hub usb-storage usb-uas usb-ehci usb-serial usb-audio usb-net qemu-xhci nec-usb-xhci
	piix3-* piix4-* e1000* rtl8139 igb vmxnet3 pcnet ne2k_pci ne2k_isa tulip i82550 i82551 i82557* i82558* i82559* VGA bochs-display
	cirrus-vga ramfb qxl qxl-vga secondary-vga vmware-svga isa-serial isa-debugcon isa-debug-exit pci-serial* virtconsole
	virtserialport intel-hda AC97 hda-* i6300esb ib700 pvpanic* vmgenid vmcoreinfo amd-iommu intel-iommu sd-card floppy megasas*
	mptsas1068 lsi53c8* pvscsi am53c974 sdhci-pci x3130-* xio3130-* ioh3420 ivshmem-none i8042 loader guest-loader
	edu generic-sdhci pc-dimm`)

// hostly are models that devices has a pattern for, and that do need something.
var hostly = strings.Fields(`virtio-input-host* virtio-9p* virtio-gpu-gl* virtio-vga-gl* virtio-gpu-rutabaga* virtio-vga-rutabaga*
	virtio-iommu-host* virtio-pmem* *vhost* *passthru*`)

// objects are the kinds of -object that need nothing of the host's but memory.
var objects = strings.Fields(`memory-backend-ram memory-backend-memfd rng-random rng-builtin iothread main-loop thread-context
	throttle-group secret secret_keyring authz-* tls-creds-* cryptodev-backend-builtin sev-guest sev-snp-guest tdx-guest`)

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, name); return ok })
}

// Rewrite makes a command that starts the same machine on other disks, with a network
// in which there is nobody.
func Rewrite(r Rewriting) (Rewritten, error) {
	w := &rewriter{Rewriting: r, out: Rewritten{Forward: map[string]string{}, Copies: map[string]string{}}, used: map[string]bool{}}
	if len(r.Command) == 0 {
		return w.out, fmt.Errorf("%w: it is empty", ErrCommand)
	}
	if err := w.all(); err != nil {
		return w.out, err
	}
	for _, at := range r.Asked {
		if w.out.Forward[at] == "" {
			return w.out, fmt.Errorf("%w: a probe asks %s, and no network device of the command leads there (probe a port that hostfwd= forwards, an IPv4 address of the guest's, or the console)", ErrCommand, at)
		}
	}
	for file := range r.Disks {
		if !w.used[r.Disks[file]] {
			return w.out, fmt.Errorf("%w: it does not open %s, which is a disk of the VM (give boot.command)", ErrCommand, file)
		}
	}
	return w.out, nil
}

// rewriter rewrites one command.
type rewriter struct {
	Rewriting
	out    Rewritten
	used   map[string]bool   // the images of Disks that the new command opens
	protos map[string]string // protocol nodes that are a disk's, by node name: the image
	refers map[string]bool   // nodes that another node refers to
	apart  bool              // an option says what network there is, if any
}

func (w *rewriter) add(args ...string) { w.out.Command = append(w.out.Command, args...) }

func refuse(option, why string) error { return fmt.Errorf("%w: %s: %s", ErrCommand, option, why) }

func (w *rewriter) all() error {
	if err := w.findNodes(); err != nil {
		return err
	}
	w.add(w.Command[0])
	for i := 1; i < len(w.Command); i++ {
		option, ok := strings.CutPrefix(w.Command[i], "-")
		option = strings.TrimPrefix(option, "-")
		switch {
		case !ok: // a disk image by its name alone is -hda
			if err := w.wholeDisk("hda", w.Command[i]); err != nil {
				return err
			}
			continue
		case slices.Contains(keptAlone, option):
			w.apart = w.apart || option == "nodefaults"
			w.add("-" + option)
			continue
		case slices.Contains(droppedAlone, option):
			continue
		}
		if i++; i == len(w.Command) {
			return refuse("-"+option, "it has no value, or is not known here (give boot.command: a command without it)")
		}
		if err := w.option(option, w.Command[i]); err != nil {
			return err
		}
	}
	if !w.apart { // QEMU would make one that reaches everybody
		w.add("-nic", "user,restrict=on")
	}
	return nil
}

// option rewrites one option that has a value.
func (w *rewriter) option(option, value string) error {
	if _, ok := whole[option]; ok {
		return w.wholeDisk(option, value)
	}
	switch {
	case slices.Contains(kept, option):
		if s := parseSettings(value, "").only(writing[option]...); len(s) > 0 {
			return refuse("-"+option+" "+value, s[0].key+"= writes a file (give boot.command: a command without it)")
		}
		w.add("-"+option, value)
		return nil
	case option == "usbdevice" && slices.Contains(usbDevices, value):
		w.add("-"+option, value)
		return nil
	case slices.Contains(dropped, option):
		return nil
	case slices.Contains(read, option):
		if w.Has != nil && w.Has(value) {
			value = w.copy(value)
		}
		w.add("-"+option, value)
		return nil
	}
	switch option {
	case "cdrom":
		return w.cdrom(value)
	case "drive":
		return w.drive(value)
	case "blockdev":
		return w.blockdev(value)
	case "netdev", "nic", "net":
		return w.network(option, value)
	case "device":
		return w.known(option, value, "driver", devices, hostly)
	case "object":
		return w.known(option, value, "qom-type", objects, nil)
	case "chardev":
		id := parseSettings(value, "backend").get("id")
		w.add("-chardev", settings{}.with("backend", "null", "id", id).String())
		return nil
	case "audiodev":
		s, err := parseObject(value, "driver")
		if err != nil {
			return refuse("-audiodev "+value, err.Error())
		}
		w.add("-audiodev", settings{}.with("driver", "none", "id", s.get("id")).String())
		return nil
	}
	return refuse("-"+option+" "+value, "it is not known to be without effect outside the machine (give boot.command: a command without it)")
}

// known passes an option on whose first key names something on a list.
func (w *rewriter) known(option, value, first string, list, but []string) error {
	s, err := parseObject(value, first)
	if err != nil {
		return refuse("-"+option+" "+value, err.Error())
	}
	if name := s.get(first); !matches(list, name) || matches(but, name) {
		return refuse(fmt.Sprintf("-%s %s", option, name), "it may reach the host (give boot.command: a command without it)")
	}
	w.add("-"+option, value)
	return nil
}

// image returns what a file of the command is replaced by, if it is a disk.
func (w *rewriter) image(file string) (string, bool) {
	file = filepath.Clean(strings.TrimPrefix(file, "file:"))
	for disk, image := range w.Disks {
		if file == disk || same(file, disk) {
			w.used[image] = true
			return image, true
		}
	}
	return "", false
}

// same reports whether two paths name one file through symlinks.
func same(a, b string) bool {
	ra, erra := filepath.EvalSymlinks(a)
	rb, errb := filepath.EvalSymlinks(b)
	return erra == nil && errb == nil && ra == rb
}
