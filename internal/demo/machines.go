package demo

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/drydock-vm/drydock/internal/demo/guest"
)

// guests makes the two machines and the configuration that drydock works with.
func (d *demo) guests(ctx context.Context) error {
	d.title("Two machines are made: web, a server, and builder, which builds its images")
	dir := d.path("guests")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	made, err := guest.Make(ctx, guest.Options{Dir: dir, Cache: d.Cache, Drydock: d.Executable, Progress: d.Out})
	if err != nil {
		return err
	}
	d.web = made.Web
	text := d.config(made)
	if err := os.WriteFile(d.path("drydock.yaml"), []byte(text), 0o600); err != nil {
		return err
	}
	d.say("\n$ cat %s\n%s", d.path("drydock.yaml"), text)
	return d.drydock(ctx, 0, "config", "check")
}

// config is the configuration of the demo's host, as a person would write it.
func (d *demo) config(g *guest.Guests) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("state: %s", d.path("state"))
	p("runtime: %s", d.path("run"))
	p("repository:")
	p("  path: %s", d.path("repository"))
	p("vms:")
	for _, m := range []guest.Machine{g.Web, g.Builder} {
		p("  %s:", m.Name)
		p("    driver: qemu")
		p("    command:")
		for _, word := range m.Command {
			p("      - %q", word)
		}
		p("    shutdown_timeout: 60s")
		p("    health:")
		if m.Port != 0 {
			p("      timeout: 60s") // without KVM a boot takes 11 s, and several times that on a busy machine
			p("      probes:")
			p("        - http: http://127.0.0.1:%d/", m.Port)
		} else {
			p("      timeout: 3m")
			p("      probes:")
			p("        - console: %q", "drydock builder: ready")
			p("    builder:")
			p("      spec: %s", g.SpecFolder)
			spec, _ := m.Disk("spec")
			p("      spec_disk: %s", spec.Path)
			p("      output: output")
			p("      images: [web]")
		}
		p("    disks:")
		for _, disk := range m.Disks {
			d.disk(p, m, disk)
		}
	}
	return b.String()
}

func (d *demo) disk(p func(string, ...any), m guest.Machine, disk guest.Disk) {
	extra := ""
	switch {
	case disk.Name == "spec":
		return // it is the builder's, and not a disk to keep
	case disk.Name == "output":
		extra = ", backup: off" // what it carries is in the image store
	case disk.Name == "root" && m.Port != 0:
		extra = ", image: web"
	}
	if disk.Mount != "" {
		extra = ", mount: " + disk.Mount + extra
	}
	p("      %s: {path: %s, format: %s%s}", disk.Name, disk.Path, disk.Format, extra)
}
