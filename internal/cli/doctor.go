package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/sandbox"
	"github.com/drydock-vm/drydock/internal/writervm"
)

// finding is one line of drydock doctor.
type finding struct {
	What   string `json:"what"`
	OK     bool   `json:"ok"`
	Needed bool   `json:"needed"` // without it drydock does not work on this host
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "What this host can and cannot do",
		Args:  args(cobra.NoArgs),
		RunE:  func(c *cobra.Command, _ []string) error { return a.doctor(c.Context()) },
	}
}

// programs are what drydock runs, and the Debian package of each.
var programs = []struct {
	name, pkg, use string
	needed         bool
}{
	{"qemu-img", "qemu-utils", "qcow2 snapshots, and root disks in qcow2", true},
	{"qemu-system-x86_64", "qemu-system-x86", "VMs of driver qemu, and new disk images with XFS and btrfs", false},
	{"restic", "restic", "reclaiming space in the repository (restic prune)", false},
	{"mke2fs", "e2fsprogs", "new disk images with ext4", false},
	{"mkfs.xfs", "xfsprogs", "new disk images with XFS", false},
	{"mkfs.btrfs", "btrfs-progs", "new disk images with btrfs", false},
	{"virsh", "libvirt-clients", "looking at VMs of driver libvirt by hand", false},
	{"systemctl", "systemd", "VMs of driver systemd, and the nightly timer", false},
}

func (a *app) doctor(ctx context.Context) error {
	found := []finding{readBuilt().finding()}
	for _, p := range programs {
		f := finding{What: p.name, Needed: p.needed, Detail: p.use}
		if path, err := exec.LookPath(p.name); err == nil {
			f.OK, f.Detail = true, path
		} else {
			f.Fix = "apt-get install " + p.pkg
		}
		found = append(found, f)
	}
	found = append(found, kvm())
	cfg, cfgErr := a.load()
	var o sandbox.Options
	var w config.Writer
	if cfgErr == nil {
		o, w = sandboxOptions(cfg, ""), cfg.Writer
	}
	found = append(found, writerKernels(w)...)
	found = append(found, confinement(ctx, o)...)
	switch {
	case cfgErr == nil:
		found = append(found, finding{What: "configuration", OK: true, Detail: fmt.Sprintf("%s, %d VMs", a.configPath, len(cfg.VMs))})
		found = append(found, a.doctorVMs(ctx)...)
	case errors.Is(cfgErr, os.ErrNotExist):
		found = append(found, finding{What: "configuration", Detail: a.configPath + " does not exist", Fix: "drydock config init"})
	default:
		found = append(found, finding{What: "configuration", Needed: true, Detail: cfgErr.Error(), Fix: "drydock config check"})
	}
	return a.diagnosis(found)
}

func (a *app) diagnosis(found []finding) error {
	bad := 0
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, f := range found {
		word := "ok"
		if !f.OK {
			word = "missing"
			if f.Needed {
				word = "MISSING"
				bad++
			}
		}
		fix := ""
		if f.Fix != "" {
			fix = "  → " + f.Fix
		}
		fmt.Fprintf(w, "%s\t%s\t%s%s\n", word, f.What, escape.Line(f.Detail), fix)
	}
	if a.json {
		if err := a.printJSON(found); err != nil {
			return err
		}
	} else if err := w.Flush(); err != nil {
		return err
	}
	if bad > 0 {
		return fmt.Errorf("%d things that drydock needs are missing on this host", bad)
	}
	return nil
}

// kvm says what is known about KVM without trusting it: the device may be
// there and guests hang in it all the same.
func kvm() finding {
	f := finding{What: "kvm", Detail: "no /dev/kvm: VMs need -accel tcg in their command"}
	dev, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err == nil {
		dev.Close()
		f.OK, f.Detail = true, "/dev/kvm opens; whether guests run in it only a boot can tell"
	}
	return f
}

// writerKernels says what boots where XFS and btrfs are written. An error tells the fix.
func writerKernels(w config.Writer) (out []finding) {
	for _, fstype := range []string{"xfs", "btrfs"} {
		f := finding{What: "kernel for images with " + fstype}
		k, err := writervm.Kernel{Image: w.Kernel, Modules: w.Modules}.Find(fstype)
		if f.OK = err == nil; f.OK {
			f.Detail = k.Image
		} else {
			f.Detail = err.Error()
		}
		out = append(out, f)
	}
	return out
}

func confinement(ctx context.Context, o sandbox.Options) []finding {
	measures, err := sandbox.Probe(ctx, o)
	if err != nil {
		return []finding{{What: "disk reader", Needed: true, Detail: err.Error()}}
	}
	var out []finding
	for _, m := range measures {
		f := finding{What: "disk reader: " + m.Name, OK: m.OK, Needed: true, Detail: m.Detail}
		if !m.OK {
			f.Fix = "a newer kernel, or sandbox: {allow_without: [" + m.Name + "]}"
			for _, allowed := range o.AllowWithout {
				f.Needed = f.Needed && allowed != m.Name
			}
		}
		out = append(out, f)
	}
	return out
}

// doctorVMs says of each disk how it will be snapshotted.
func (a *app) doctorVMs(ctx context.Context) []finding {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return []finding{{What: "state", Needed: true, Detail: err.Error()}}
	}
	defer h.close()
	plan, err := h.runner.Plan(ctx, h.vms)
	if err != nil {
		return []finding{{What: "plan", Needed: true, Detail: err.Error()}}
	}
	out := []finding{h.doctorRepository(ctx, finding{What: "repository", Needed: true}, h.config.Repository)}
	for _, c := range h.config.Copies {
		out = append(out, h.doctorRepository(ctx, finding{What: "copy " + copyName(c)}, c.Repository))
	}
	for _, v := range plan.VMs {
		if v.Skip != "" {
			out = append(out, finding{What: v.VM, Needed: true, Detail: v.Skip})
			continue
		}
		out = append(out, finding{What: v.VM, OK: true, Detail: string(v.Found)})
		for _, d := range v.Disks {
			if d.Backup {
				out = append(out, finding{What: v.VM + "/" + d.Disk, OK: true, Detail: "snapshot: " + d.Snapshot + " (" + d.Reason + ")"})
			}
		}
	}
	return out
}

// doctorRepository says whether a repository can be reached, and opened with its key.
func (h *host) doctorRepository(ctx context.Context, f finding, c config.Repository) finding {
	there, err := h.repositoryOpens(ctx, c)
	switch {
	case err != nil:
		f.Detail = err.Error()
	case there:
		f.OK, f.Detail = true, c.Path
	default:
		f.OK, f.Detail = true, "there is none at "+c.Path+" yet: the first backup makes it"
	}
	return f
}
