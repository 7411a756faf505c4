package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

const targetHelp = `TARGET is a disk image (PATH.qcow2, PATH.raw), a VM that is off (VM, VM/DISK), or a
backup (VM@BACKUP, VM/DISK@BACKUP, where BACKUP is latest, an ID or a date), or all
backups of a VM, each a folder that is called by its time (VM@).
Behind it #NAME picks an internal snapshot of a qcow2 disk, and :/PATH a path in
the guest. A disk that a backup has as an image is looked into like one that is
there. A disk with several filesystems shows what the guest sees, put together
as its /etc/fstab says; --volume picks one. The disk is read in a confined process;
nothing is mounted, and no root is needed but for the files themselves.`

// looking says how a disk is looked into.
type looking struct {
	volume   string   // as the user names it; "" for all of the guest
	with     []string // further disk images of the same VM
	backing  []string // images below the first, topmost first
	dataFile string
	all      bool // of the only filesystem, and not what the guest sees of it
}

// lookFlags are the flags of the verbs that look into disks.
func lookFlags(c *cobra.Command) *looking {
	l := new(looking)
	f := c.Flags()
	f.StringVar(&l.volume, "volume", "", "the volume to look into, as drydock info names it, or a partition's number")
	f.StringArrayVar(&l.with, "with", nil, "another disk image of the same VM, or another disk that the backup has as an image; may be repeated")
	f.StringArrayVar(&l.backing, "backing", nil, "the image that a qcow2 image lies on top of; repeated, further down")
	f.StringVar(&l.dataFile, "data-file", "", "the file that holds the data of a qcow2 image that keeps it elsewhere")
	return l
}

// check refuses what makes no sense for a TARGET.
func (l *looking) check(t target) error {
	switch {
	case t.image == "" && (l.backing != nil || l.dataFile != "" || l.with != nil && !t.wholeDisk()):
		return usageError("--with, --backing and --data-file go with a disk image's path; %s's are in the configuration", t.vm)
	case t.ofBackup() && l.volume != "" && !t.wholeDisk():
		return usageError("a backup has no volumes: leave --volume out, or name a disk that it has as an image (%s/DISK@BACKUP)", t.vm)
	}
	return nil
}

// checkFiles refuses what makes no sense for a backup of files.
func (l *looking) checkFiles(o *opened, t target) error {
	if l.volume != "" || l.with != nil {
		return usageError("backup %s has the files of disk %s, which have no volumes: leave --volume and --with out", o.backup.ID.Short(), t.disk)
	}
	return nil
}

// openReader opens the disks that the user names by their paths, in a worker.
func (a *app) openReader(ctx context.Context, o *opened, t target, l *looking) (*sandbox.Reader, error) {
	spec, err := a.imageSpec(o, t)
	if err != nil {
		return nil, err
	}
	if err := a.addBelow(o, &spec, l); err != nil {
		return nil, err
	}
	specs := []sandbox.DiskSpec{spec}
	for _, path := range l.with {
		more, err := parseTarget(path)
		if err == nil && more.image == "" {
			err = usageError("--with %s: the name of a disk image ends in .qcow2, .raw, .img or .iso", path)
		}
		if err != nil {
			return nil, err
		}
		if spec, err = a.imageSpec(o, more); err != nil {
			return nil, err
		}
		specs = append(specs, spec)
	}
	// The configuration is asked for the sandbox alone, and need not exist: an
	// image is looked into by anybody.
	var opts sandbox.Options
	if c, err := config.Load(a.configPath); err == nil {
		opts = sandboxOptions(c, "")
	}
	return a.start(ctx, o, opts, specs...)
}

func (a *app) start(ctx context.Context, o *opened, opts sandbox.Options, specs ...sandbox.DiskSpec) (*sandbox.Reader, error) {
	r, err := sandbox.Start(ctx, opts, specs...)
	if err != nil {
		return nil, err
	}
	o.closers = append(o.closers, func() { r.Close() })
	return r, nil
}

// imageSpec opens one image, and keeps QEMU from starting on it.
func (a *app) imageSpec(o *opened, t target) (sandbox.DiskSpec, error) {
	f, err := o.openFile(t.image)
	if err != nil {
		return sandbox.DiskSpec{}, err
	}
	if err := lockForReading(f, t); err != nil {
		return sandbox.DiskSpec{}, err
	}
	return sandbox.DiskSpec{Name: diskName(t.image), File: f, Format: t.format, Snapshot: t.snapshot}, nil
}

// addBelow opens what a qcow2 image says it needs, as the user declares it.
func (a *app) addBelow(o *opened, spec *sandbox.DiskSpec, l *looking) error {
	if l.dataFile != "" {
		f, err := o.openFile(l.dataFile)
		if err != nil {
			return err
		}
		spec.DataFile = f
	}
	for _, path := range l.backing {
		below, err := parseTarget(path)
		if err == nil && below.image == "" {
			err = usageError("--backing %s: the name of a disk image ends in .qcow2, .raw, .img or .iso", path)
		}
		if err != nil {
			return err
		}
		f, err := o.openFile(below.image)
		if err != nil {
			return err
		}
		spec.Backing = &sandbox.DiskSpec{Name: path, File: f, Format: below.format, Snapshot: below.snapshot}
		spec = spec.Backing
	}
	return nil
}

// openFile opens a regular file or a block device. Anything else would block, or
// never end.
func (o *opened) openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	o.closers = append(o.closers, func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if m := st.Mode(); !m.IsRegular() && m&(os.ModeDevice|os.ModeCharDevice) != os.ModeDevice {
		return nil, fmt.Errorf("%s is neither a file nor a block device, and holds no disk", path)
	}
	return f, nil
}

// diskName is what a disk is called that the user names by its path: the name of
// the file without its ending.
func diskName(path string) string {
	name := filepath.Base(path)
	return cmp.Or(strings.TrimSuffix(name, filepath.Ext(name)), "disk")
}

// lockForReading keeps a QEMU from starting on the disk while it is read. An
// internal snapshot does not change, so it needs no lock.
func lockForReading(f *os.File, t target) error {
	if t.snapshot != "" {
		return nil
	}
	_, err := imagelock.Acquire(f, imagelock.ReadShared)
	if errors.Is(err, imagelock.ErrInUse) {
		return fmt.Errorf("%w: look into a backup (VM@latest), or an internal snapshot of it (#NAME)", err)
	}
	return err
}

// volume returns the volume that the user names: by its name, or by the number of
// a partition of the first disk.
func findVolume(ctx context.Context, r *sandbox.Reader, name string) (sandbox.Volume, error) {
	volumes, err := r.Volumes(ctx)
	if err != nil {
		return sandbox.Volume{}, err
	}
	number, notNumber := strconv.Atoi(name)
	for _, v := range volumes {
		if v.Name == name || notNumber == nil && v.Kind == sandbox.Partition && v.Parent == 0 && v.Number == number {
			return v, nil
		}
	}
	return sandbox.Volume{}, usageError("%s has no volume %q%s", r.Disks()[0].Name(), name, volumesHint(volumes))
}

// openVolume opens the filesystem in a volume that the user names.
func openVolume(ctx context.Context, r *sandbox.Reader, name string) (disk.Filesystem, error) {
	v, err := findVolume(ctx, r, name)
	if err != nil {
		return nil, err
	}
	return r.Filesystem(ctx, v.Name)
}

// openTree opens the only filesystem on the disks, or, if there are several, or
// subvolumes that the guest mounts in different places, the tree that the guest sees.
func (a *app) openTree(ctx context.Context, r *sandbox.Reader, all bool) (disk.Filesystem, error) {
	volumes, err := r.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	var readable []sandbox.Volume
	for _, v := range volumes {
		if v.Readable {
			readable = append(readable, v)
		}
	}
	switch len(readable) {
	case 0:
		return nil, fmt.Errorf("%s has no filesystem that drydock reads%s", r.Disks()[0].Name(), volumesHint(volumes))
	case 1:
		fsys, err := r.Filesystem(ctx, readable[0].Name)
		if err != nil || all || !hasSubvolumes(fsys) {
			return fsys, err
		}
		if g, err := r.Guest(ctx, ""); err == nil && len(g.Mounts) > 1 {
			return g, nil
		}
		return fsys, nil // of no system, or of one that has nothing else
	}
	g, err := r.Guest(ctx, "")
	if errors.Is(err, disk.ErrNotExist) {
		return nil, usageError("%s has several filesystems, and none is a guest's root: name one with --volume%s", r.Disks()[0].Name(), volumesHint(volumes))
	}
	if err != nil {
		return nil, err
	}
	return g, nil
}

// hasSubvolumes reports whether a filesystem has more than its top level.
func hasSubvolumes(fsys disk.Filesystem) bool {
	lister, ok := fsys.(disk.SubvolumeLister)
	if !ok {
		return false
	}
	list, _ := lister.Subvolumes() // those that can be read
	return len(list) > 1
}

// remark tells what an administrator should know of a filesystem.
func (a *app) remark(fsys disk.Filesystem) {
	for _, text := range fsys.Info().Remarks {
		fmt.Fprintf(a.stderr, "drydock: note: %s\n", text)
	}
}

// volumesHint names the volumes of a VM's disks, since the likely fix is to name
// another one.
func volumesHint(volumes []sandbox.Volume) string {
	var list []string
	for _, v := range volumes {
		if v.Table != "" {
			continue
		}
		list = append(list, fmt.Sprintf("%s: %s, %s", escape.Line(v.Name), contentText(&v), round.Bytes(v.Size)))
	}
	if len(list) == 0 {
		return ""
	}
	return " (there is " + strings.Join(list, "; ") + ")"
}

// contentText says what a volume holds.
func contentText(v *sandbox.Volume) string {
	switch {
	case v.Content != "":
		return escape.Line(v.Content)
	case v.Table != "":
		return v.Table
	}
	return "unknown"
}
