package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"

	"github.com/drydock-vm/drydock/internal/pattern"
)

// The names of VMs, disks and images: they become names of folders, host names
// in the repository, and words on the command line ("VM/disk@backup:/path"), so
// no letter with a meaning in one of these is in them.
var (
	vmName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	diskName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)
	unitName = regexp.MustCompile(`^[A-Za-z0-9:_.@\\-]{1,240}\.(service|scope)$`)
)

// imageSuffixes end the names of image files; a VM called so could not be told
// from one on the command line.
var imageSuffixes = []string{".qcow2", ".raw", ".img"}

// check finds what is wrong between values that are right one by one.
func (r *reader) check(c *Config) {
	r.checkPath("state", c.State)
	r.checkPath("runtime", c.Runtime)
	if c.Writer.Modules != "" && c.Writer.Kernel == "" {
		r.problem("writer.modules", "there is no kernel that these modules are of", "name it as writer.kernel")
	}
	r.checkRepositories(c)
	r.checkSchedule(c.Schedule)
	if c.Verify.Every == 0 {
		r.problem("verify.every", "must be longer than 0s", "mode: off turns the proofs off")
	}
	if b := c.Verify.Boot; b != nil && b.Every == 0 {
		r.problem("verify.boot.every", "must be longer than 0s", "leave boot out, and no VM is started from a backup")
	}
	for i, folder := range c.DiskFolders {
		r.checkPath(fmt.Sprintf("disk_folders[%d]", i), folder)
	}
	for _, name := range sortedKeys(c.Images) {
		if _, ok := r.at["images."+name]; ok { // those of the builder are checked there
			r.checkName("images", name, vmName)
		}
	}
	if len(c.VMs) == 0 {
		r.problem("vms", "there is no VM", "")
	}
	builder := ""
	for _, name := range sortedKeys(c.VMs) {
		vm := c.VMs[name]
		r.checkName("vms", name, vmName)
		for _, suffix := range imageSuffixes {
			if strings.HasSuffix(name, suffix) {
				r.problem("vms."+name, fmt.Sprintf("a VM's name cannot end in %q", suffix), "the command line would take it for a file")
			}
		}
		r.checkVM(c, vm)
		if vm.Builder == nil {
			continue
		}
		if builder != "" {
			r.problem("vms."+name+".builder", fmt.Sprintf("%s is a builder already", builder), "there is at most one builder VM")
		}
		builder = name
	}
	r.checkMaxAge(c)
	r.checkSharedPaths(c)
}

// checkSchedule looks for what would break the unit file that the schedule is
// written to; whether systemd understands it, systemd says.
func (r *reader) checkSchedule(s string) {
	if strings.ContainsFunc(s, unicode.IsControl) {
		r.problem("schedule", "has a control character in it", `write it like "*-*-* 02:30:00"`)
	}
}

func (r *reader) checkVM(c *Config, vm *VM) {
	key := "vms." + vm.Name
	r.checkDriver(key, vm)
	r.checkHealth(key, vm)
	r.checkBoot(key+".boot", vm.Boot)
	if vm.ShutdownTimeout == 0 {
		r.problem(key+".shutdown_timeout", "must be longer than 0s", "")
	}
	if len(vm.Disks) == 0 {
		r.problem(key+".disks", "the VM has no disk", "name its disks, or leave the VM out")
	}
	mounts := map[string]string{}
	for _, name := range sortedKeys(vm.Disks) {
		r.checkName(key+".disks", name, diskName)
		d := vm.Disks[name]
		r.checkDisk(c, key+".disks."+name, d)
		if d.Mount == "" {
			continue
		}
		if other, ok := mounts[d.Mount]; ok {
			r.problem(key+".disks."+name+".mount", fmt.Sprintf("disk %s is mounted at %s already", other, d.Mount), "")
		}
		mounts[d.Mount] = name
	}
	for _, name := range sortedKeys(vm.Sinks) {
		r.checkName(key+".sinks", name, diskName)
		r.checkSink(key+".sinks."+name, vm, vm.Sinks[name])
	}
	if vm.Builder != nil {
		r.checkBuilder(key+".builder", vm)
	}
}

func (r *reader) checkSink(key string, vm *VM, s *Sink) {
	if s.Timeout == 0 {
		r.problem(key+".timeout", "must be longer than 0s", "")
	}
	for i, name := range s.Disks {
		if d := vm.Disks[name]; d == nil {
			r.problem(fmt.Sprintf("%s.disks[%d]", key, i), fmt.Sprintf("the VM has no disk %s", name), "")
		} else if d.Backup == BackupOff {
			r.problem(fmt.Sprintf("%s.disks[%d]", key, i), fmt.Sprintf("the backup of disk %s is off, so that it is not frozen", name), "")
		}
	}
	switch {
	case (s.Borg == nil) == (len(s.Command) == 0):
		r.problem(key, `must have one of "borg" and "command"`, "borg: {repository: /srv/borg}")
	case s.Borg == nil && s.Input == "":
		r.problem(key, `command needs "input"`, "input: tar")
	case s.Borg != nil && s.Input != "":
		r.problem(key+".input", "borg always gets a folder", "leave it out")
	}
	for i, arg := range s.Command {
		if strings.ContainsRune(arg, 0) {
			r.problem(fmt.Sprintf("%s.command[%d]", key, i), "has a NUL byte in it", "")
		}
	}
}

func (r *reader) checkDriver(key string, vm *VM) {
	for _, k := range []struct {
		name    string
		given   bool
		drivers []string
	}{
		{"command", vm.Command != nil, []string{DriverQEMU}},
		{"unit", vm.Unit != "", []string{DriverSystemd}},
		{"qmp", vm.QMP != "", []string{DriverSystemd}},
		{"domain", vm.Domain != "", []string{DriverLibvirt}},
		{"socket", vm.Socket != "", []string{DriverLibvirt}},
		{"console", vm.Console != "", []string{DriverSystemd, DriverLibvirt}},
	} {
		if k.given && !slices.Contains(k.drivers, vm.Driver) {
			r.problem(key+"."+k.name, fmt.Sprintf("driver %s does not know it", vm.Driver), "it is for driver "+strings.Join(k.drivers, " and "))
		}
	}
	switch vm.Driver {
	case DriverQEMU:
		if len(vm.Command) == 0 {
			r.problem(key, `driver qemu needs "command"`, "command: [qemu-system-x86_64, …]")
		}
		for i, arg := range vm.Command {
			if strings.ContainsRune(arg, 0) {
				r.problem(fmt.Sprintf("%s.command[%d]", key, i), "has a NUL byte in it", "")
			}
		}
	case DriverSystemd:
		if vm.Unit == "" {
			r.problem(key, `driver systemd needs "unit"`, "unit: "+vm.Name+".service")
		} else if !unitName.MatchString(vm.Unit) {
			r.problem(key+".unit", fmt.Sprintf("%q is not the name of a unit that a VM can be", vm.Unit), "a name like "+vm.Name+".service")
		}
		r.checkPath(key+".qmp", vm.QMP)
	case DriverLibvirt:
		switch {
		case vm.Domain == "":
			r.problem(key, `driver libvirt needs "domain"`, "domain: "+vm.Name)
		case strings.ContainsAny(vm.Domain, "/\n\x00"):
			r.problem(key+".domain", fmt.Sprintf("%q cannot be the name of a domain", vm.Domain), "virsh list --all shows those that there are")
		}
		r.checkPath(key+".socket", vm.Socket)
	}
	r.checkPath(key+".console", vm.Console)
}

func (r *reader) checkHealth(key string, vm *VM) {
	if vm.Health.Interval == 0 {
		r.problem(key+".health.interval", "must be longer than 0s", "")
	}
	if len(vm.Health.Probes) > 0 && vm.Health.Timeout == 0 {
		r.problem(key+".health.timeout", "must be longer than 0s", "")
	}
	for i, p := range vm.Health.Probes {
		r.checkProbe(fmt.Sprintf("%s.health.probes[%d]", key, i), vm, p)
	}
}

func (r *reader) checkProbe(key string, vm *VM, p Probe) {
	kinds := 0
	for _, given := range []bool{p.TCP != "", p.HTTP != "", p.Console != "", p.Active} {
		if given {
			kinds++
		}
	}
	if kinds != 1 {
		r.problem(key, fmt.Sprintf("has %d of the kinds of probe, must have one", kinds), "one of tcp, http, console, and active: true")
		return
	}
	if p.HTTP == "" && (p.Status != 0 || p.Text != "") {
		r.problem(key, "status and text are for an http probe only", "")
	}
	switch {
	case p.TCP != "":
		if problem := hostPort(p.TCP); problem != "" {
			r.problem(key+".tcp", problem, "write HOST:PORT, like 127.0.0.1:80 or [::1]:80")
		}
	case p.HTTP != "":
		u, err := url.Parse(p.HTTP)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
			r.problem(key+".http", fmt.Sprintf("%q is not a URL that can be asked", p.HTTP), "write it like http://127.0.0.1:8080/healthz")
		} else if u.User != nil {
			r.problem(key+".http", "has a password in it", "probe something that needs none")
		}
	case p.Console != "":
		if _, err := regexp.Compile(p.Console); err != nil {
			r.problem(key+".console", fmt.Sprintf("is not a regular expression: %v", err), "the syntax is RE2's: https://golang.org/s/re2syntax")
		}
		if vm.Driver == DriverSystemd && vm.Console == "" {
			r.problem(key+".console", "nobody knows where the console of this VM is kept", fmt.Sprintf("give vms.%s.console, the file that it is written to", vm.Name))
		}
	}
}

// hostPort says what is wrong with a HOST:PORT, or "".
func hostPort(s string) string {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return fmt.Sprintf("%q is not a host and a port", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Sprintf("%q is not a port", port)
	}
	return ""
}

func (r *reader) checkDisk(c *Config, key string, d *Disk) {
	lists := []struct {
		name     string
		patterns []string
	}{{"include", d.Include}, {"exclude", d.Exclude}}
	r.checkPath(key+".path", d.Path)
	switch {
	case d.Mount == "" && d.Backup == BackupFiles:
		r.problem(key, "nobody knows where the guest mounts this disk, so its files cannot be backed up", `give "mount", or say "backup: image" or "backup: off"`)
	case strings.ContainsFunc(d.Mount, unicode.IsControl):
		r.checkPath(key+".mount", d.Mount)
	case d.Mount == definitionFolder || strings.HasPrefix(d.Mount, definitionFolder+"/"):
		r.problem(key+".mount", "is where a backup has the definition of its VM", "mount it elsewhere, or say backup: image")
	case d.Mount != "" && (!path.IsAbs(d.Mount) || path.Clean(d.Mount) != d.Mount):
		r.problem(key+".mount", fmt.Sprintf("%q is not a clean absolute path", d.Mount), mountFix(d.Mount))
	}
	if d.Volume != "" {
		r.checkVolume(key+".volume", d)
	}
	if d.Backup != BackupFiles {
		for _, name := range []string{"include", "exclude", "exclude_caches", "exclude_nodump", "exclude_larger_than", "btrfs_snapshots"} {
			if _, ok := r.at[key+"."+name]; ok {
				r.problem(key+"."+name, "has no meaning where backup is "+d.Backup, "")
			}
		}
	}
	r.checkImageMode(key, d)
	for _, list := range lists {
		for i, p := range list.patterns {
			r.checkPattern(fmt.Sprintf("%s.%s[%d]", key, list.name, i), p)
		}
	}
	if d.Image != "" && c.Images[d.Image] == nil {
		known := sortedKeys(c.Images)
		hint := fmt.Sprintf("name it in the builder's images, or below %q", "images:")
		if near := nearest(d.Image, known); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		r.problem(key+".image", fmt.Sprintf("there is no image %q", d.Image), hint)
	}
	if d.Backing != nil {
		r.checkBacking(c, key, d)
	}
}

// definitionFolder is where package definition has the definition of a VM in its
// backups.
const definitionFolder = "/.drydock"

// checkImageMode checks what only a backup as an image has.
func (r *reader) checkImageMode(key string, d *Disk) {
	const fix = `say "backup: image"`
	if d.FreeSpace != "" && d.Backup != BackupImage {
		r.problem(key+".free_space", "has a meaning for images only", fix)
	}
	switch {
	case d.DirtyBitmap && d.Backup != BackupImage:
		r.problem(key+".dirty_bitmap", "has a meaning for images only", fix)
	case d.DirtyBitmap && d.Format != FormatQCOW2:
		r.problem(key+".dirty_bitmap", "a raw disk has no place for dirty bitmaps", "leave it out")
	}
}

// logicalVolume is GROUP/NAME in the characters that LVM allows (lvm(8)).
var logicalVolume = regexp.MustCompile(`^[a-zA-Z0-9+_.][a-zA-Z0-9+_.-]*/[a-zA-Z0-9+_.][a-zA-Z0-9+_.-]*$`)

func (r *reader) checkVolume(key string, d *Disk) {
	if !logicalVolume.MatchString(d.Volume) {
		r.problem(key, fmt.Sprintf("%q is not a logical volume", d.Volume), "write it as GROUP/NAME, like vg0/data")
	}
	if d.Partition != 0 {
		r.problem(key, "a disk has either a partition or a volume", "a logical volume is found wherever its physical volumes are: leave partition out")
	}
}

func (r *reader) checkBacking(c *Config, key string, d *Disk) {
	r.checkPath(key+".backing.path", d.Backing.Path)
	if d.Format != FormatQCOW2 {
		r.problem(key+".backing", "only a qcow2 disk has a backing file", "")
	}
	if d.Image != "" {
		r.problem(key+".backing", "a disk that an image replaces has no backing file", "flatten it once: qemu-img rebase -b ''")
	}
	if !slices.ContainsFunc(c.DiskFolders, func(folder string) bool { return within(folder, d.Backing.Path) }) {
		r.problem(key+".backing.path", fmt.Sprintf("%s is in none of the folders that backing files may be opened from", d.Backing.Path), fmt.Sprintf("add %s to disk_folders", filepath.Dir(d.Backing.Path)))
	}
}

func (r *reader) checkBuilder(key string, vm *VM) {
	b := vm.Builder
	r.checkPath(key+".spec", b.Spec)
	r.checkPath(key+".spec_disk", b.SpecDisk)
	if b.Every == 0 {
		r.problem(key+".every", "must be longer than 0s", "")
	}
	if vm.Disks[b.Output] == nil {
		r.problem(key+".output", fmt.Sprintf("the VM has no disk %q", b.Output), "its disks are "+strings.Join(sortedKeys(vm.Disks), ", "))
	}
	if len(b.Images) == 0 {
		r.problem(key+".images", "the builder builds nothing", "name an image")
	}
	for i, name := range b.Images {
		switch itemKey := fmt.Sprintf("%s.images[%d]", key, i); {
		case !vmName.MatchString(name):
			r.problem(itemKey, fmt.Sprintf("%q is not a name", name), nameForm)
		case slices.Index(b.Images, name) < i:
			r.problem(itemKey, fmt.Sprintf("%s is in the list already", name), "")
		}
	}
}

// checkSharedPaths finds files that two disks would write to.
func (r *reader) checkSharedPaths(c *Config) {
	owner := map[string]string{}
	claim := func(key, file, who string) {
		if other, ok := owner[file]; ok {
			r.problem(key, fmt.Sprintf("%s is %s already", file, other), "each disk needs a file of its own")
			return
		}
		owner[file] = who
	}
	for _, name := range sortedKeys(c.VMs) {
		vm := c.VMs[name]
		for _, disk := range sortedKeys(vm.Disks) {
			claim("vms."+name+".disks."+disk+".path", vm.Disks[disk].Path, fmt.Sprintf("disk %s of VM %s", disk, name))
		}
		if vm.Builder != nil {
			claim("vms."+name+".builder.spec_disk", vm.Builder.SpecDisk, "the spec disk of VM "+name)
		}
	}
}

const nameForm = "letters, digits, - and _, up to 63"

func (r *reader) checkName(key, name string, form *regexp.Regexp) {
	if !form.MatchString(name) {
		r.problem(key+"."+name, fmt.Sprintf("%q is not a name", name), nameForm)
	}
}

// checkPath refuses what would end up broken in a unit file or a log.
func (r *reader) checkPath(key, file string) {
	if strings.ContainsFunc(file, unicode.IsControl) {
		r.problem(key, "has a control character in it", "rename the file")
	}
}

// checkPattern refuses a pattern that could match nothing, or that nobody can
// tell the meaning of.
func (r *reader) checkPattern(key, text string) {
	var e *pattern.Error
	if _, err := pattern.Compile([]string{text}); errors.As(err, &e) {
		r.problem(key, e.Error(), "")
	}
}

// problem reports what is wrong with the value at key, or where that is not in
// the file with the nearest thing above it that is.
func (r *reader) problem(key, problem, hint string) {
	for at := key; at != ""; at = parent(at) {
		p, ok := r.at[at]
		if !ok {
			continue
		}
		tok := p.key
		if at == key && isLeaf(r.at, key) {
			tok = p.value
		}
		r.fail(tok, key, problem, hint)
		return
	}
	r.fail(nil, key, problem, hint)
}

// isLeaf reports whether nothing below key has a place of its own.
func isLeaf(at map[string]place, key string) bool {
	for other := range at {
		if strings.HasPrefix(other, key) && len(other) > len(key) && (other[len(key)] == '.' || other[len(key)] == '[') {
			return false
		}
	}
	return true
}

// parent cuts the last part off a dotted path.
func parent(key string) string {
	return key[:max(0, strings.LastIndexAny(key, ".["))]
}

func mountFix(mount string) string {
	return fmt.Sprintf("write %q", path.Clean("/"+mount))
}

// within reports whether file lies below folder.
func within(folder, file string) bool {
	rel, err := filepath.Rel(folder, file)
	return err == nil && filepath.IsLocal(rel) && rel != "."
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
