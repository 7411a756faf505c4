package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/health"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/state"
	"github.com/drydock-vm/drydock/internal/trial"
	"github.com/drydock-vm/drydock/internal/vm"
)

// modeBoot is the mode of proofs that start a VM from its backup.
const modeBoot = "boot"

// booted is how the start of a VM from one of its backups went.
type booted struct {
	VM     string    `json:"vm"`
	Backup string    `json:"backup"` // its ID
	Time   time.Time `json:"time"`   // of the backup
	At     time.Time `json:"at"`     // of the proof
	// Healthy is the time from the start of QEMU until all probes passed.
	Healthy time.Duration `json:"healthy"`
	Prepare time.Duration `json:"prepare"` // before that, until there were disks to start from
	Read    int64         `json:"read"`    // bytes of the backup that QEMU read
	Error   string        `json:"error,omitempty"`
	// Notes say what the proof does not prove.
	Notes []string `json:"notes,omitempty"`
}

func (b *booted) good() bool { return b.Error == "" }

// String says it in one line.
func (b *booted) String() string {
	if !b.good() {
		return "DID NOT BOOT: " + b.Error
	}
	text := fmt.Sprintf("healthy in %s", span(b.Healthy))
	if len(b.Notes) > 0 {
		text += " (" + strings.Join(b.Notes, "; ") + ")"
	}
	return text
}

// boots starts VMs from their backups.
type boots struct{ h *host }

// folder is where machines run that are started from backups.
func (b *boots) folder() string { return filepath.Join(b.h.config.Runtime, modeBoot) }

// scratch is the folder of what they write.
func (b *boots) scratch() string { return filepath.Join(b.h.config.State, "work", modeBoot) }

// sweep ends the machines of processes that were killed.
func (b *boots) sweep() error { return trial.Sweep(b.folder(), b.scratch()) }

// prove starts a VM from a backup, and remembers how that went. An error says that it
// was not tried.
func (b *boots) prove(ctx context.Context, v *config.VM, which string) (_ *booted, err error) {
	if err := b.h.backups.rest(); err != nil {
		return nil, err
	}
	repo, err := b.h.openRepository(ctx)
	if err != nil {
		return nil, err
	}
	lock, err := repo.Lock(ctx, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Unlock(context.WithoutCancel(ctx))) }()
	s, err := restore.Find(lock.Context(), repo, v.Name, which)
	if err != nil {
		return nil, err
	}
	out := &booted{VM: v.Name, Backup: s.ID.String(), Time: s.Time, At: b.h.app.now()}
	err = b.try(lock.Context(), repo, v, s, out)
	if lock.Context().Err() != nil { // it was called off, or has lost the lock
		return nil, context.Cause(lock.Context())
	}
	if err != nil && !proves(err, out) {
		return nil, fmt.Errorf("%s: %w", v.Name, err)
	}
	if err != nil {
		out.Error = err.Error()
	}
	raw, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return out, b.h.db.AddProofs(ctx, []state.Proof{{VM: v.Name, Mode: modeBoot, At: out.At, Report: raw}})
}

// errNoBoot is of a VM or a backup of which no start can prove anything.
var errNoBoot = errors.New("cannot be started from a backup")

// proves reports whether an error says something of the backup: that it is damaged, or
// that the machine did not come up. All others are of this host, or the storage.
func proves(err error, out *booted) bool {
	if damaged := (*disk.Error)(nil); errors.As(err, &damaged) || errors.Is(err, repository.ErrDamaged) {
		return true
	}
	host := errors.Is(err, trial.ErrStart) || errors.Is(err, trial.ErrRead) || errors.Is(err, trial.ErrRoom)
	return out.Healthy > 0 && !host
}

func (b *boots) try(ctx context.Context, repo *repository.Repository, v *config.VM, s *repository.Snapshot, out *booted) error {
	begun := time.Now()
	src := &opened{backup: s}
	defer src.close()
	var err error
	if src.tree, err = restore.OpenTree(ctx, repo, s); err != nil {
		return err
	}
	o, err := b.options(v, src, out)
	if err != nil {
		return err
	}
	for _, d := range v.SortedDisks() {
		one, err := b.disk(ctx, src, v, d, out)
		if err != nil {
			return fmt.Errorf("disk %s: %w", d.Name, err)
		}
		o.Disks = append(o.Disks, one)
	}
	out.Prepare = time.Since(begun)
	r, err := trial.Run(ctx, o)
	out.Healthy, out.Read = r.Healthy, r.Read
	if src.leftOut > 0 { // also where the guest gets by without them
		damage := &disk.Error{Layer: "backup", Structure: "files", Offset: -1, Err: disk.ErrCorrupt,
			Detail: fmt.Sprintf("%d are damaged, and were not on the disks", src.leftOut)}
		if err == nil {
			return damage
		}
		err = fmt.Errorf("%w; %w", damage, err)
	}
	return err
}

// options are those of a trial, but for its disks.
func (b *boots) options(v *config.VM, src *opened, out *booted) (trial.Options, error) {
	o := trial.Options{
		Name: v.Name, Folder: filepath.Join(b.folder(), v.Name), Scratch: filepath.Join(b.scratch(), v.Name),
		Logs:    filepath.Join(b.h.config.State, "log", modeBoot),
		Command: v.Command, Timeout: config.BootTimeout, Interval: time.Duration(v.Health.Interval), Tool: qemuimg.New(qemuimg.Options{}),
	}
	if v.Boot != nil {
		o.Timeout = time.Duration(v.Boot.Timeout)
		if v.Boot.Command != nil {
			o.Command = v.Boot.Command
		}
	}
	stored, err := src.definition()
	if err != nil {
		return o, err
	}
	if len(o.Command) == 0 { // it is a unit's
		o.Command = stored.Command
	}
	if len(o.Command) == 0 {
		return o, fmt.Errorf("%w: nobody knows the command that starts it (give vms.%s.boot.command, which names the disks by their paths)", errNoBoot, v.Name)
	}
	o.Files = map[string]func() (io.Reader, error){}
	for _, f := range stored.Files {
		o.Files[f.Path] = func() (io.Reader, error) { return definition.Open(src.tree, &f) }
	}
	active := true
	for _, p := range v.Health.Probes {
		if at := probeAddress(p); at != "" {
			o.Asked = append(o.Asked, at)
		}
		active = active && p.Active
	}
	if active {
		out.Notes = append(out.Notes, "no probe asks the guest: that QEMU ran is all that is proven")
	}
	o.Probes = func(m vm.Machine, mark int64, forward map[string]string) ([]health.Probe, error) {
		return healthProbes(m, v.Health.Probes, mark, forward)
	}
	return o, nil
}

// disk is what one disk of the VM is started from.
func (b *boots) disk(ctx context.Context, src *opened, v *config.VM, d *config.Disk, out *booted) (trial.Disk, error) {
	one := trial.Disk{Name: d.Name, Path: d.Path}
	var err error
	switch {
	case hasDisk(src.backup, d.Name):
		if one.Content, err = b.h.app.backupDisk(ctx, src, v, d, madeDisk{grow: true}); err == nil {
			out.noteLarger(src.backup, d.Name, one.Content.Size())
		}
	case d.Image != "":
		out.Notes = append(out.Notes, fmt.Sprintf("disk %s is that of the image store", d.Name))
		one.Base, err = b.installed(v, d)
	case d.Backup == config.BackupOff:
		out.Notes = append(out.Notes, fmt.Sprintf("disk %s, which is not backed up, is empty", d.Name))
		one.Size, err = diskSize(d)
	default:
		err = fmt.Errorf("%w: backup %s does not have it", errNoBoot, src.backup.ID.Short())
	}
	return one, err
}

// hasDisk reports whether a backup has a disk: as a whole, the version of an image that
// it was made from, or its files.
func hasDisk(s *repository.Snapshot, name string) bool {
	_, files := backup.DiskMount(s, name)
	return files || wholedisk.Has(s, name) || wholedisk.HasVersion(s, name)
}

// noteLarger says of a filesystem that it was made larger than it was: a restore of the
// disk takes a size, too.
func (b *booted) noteLarger(s *repository.Snapshot, disk string, size int64) {
	was, known := backup.FilesystemOf(s, disk)
	if _, files := backup.DiskMount(s, disk); !files || wholedisk.HasLayout(s, disk) || !known || size <= was.Size {
		return
	}
	b.Notes = append(b.Notes, fmt.Sprintf("disk %s had %s, and takes %s to be made anew: a restore takes --size %[1]s=%[4]dM",
		disk, round.Bytes(was.Size), round.Bytes(size), (size+1<<20-1)>>20))
}

// backupDisk is a disk of a VM as a backup has it, for a machine to start from.
func (a *app) backupDisk(ctx context.Context, src *opened, v *config.VM, d *config.Disk, how madeDisk) (disk.Sparse, error) {
	if wholedisk.Has(src.backup, d.Name) || wholedisk.HasVersion(src.backup, d.Name) {
		return src.tree.Image(d.Name)
	}
	k, err := definedDisk(src, d.Name)
	if err != nil {
		return nil, err
	}
	if k.Path == "" { // the backup does not tell
		k.Partition, k.Volume = d.Partition, d.Volume
	}
	mount, _ := backup.DiskMount(src.backup, d.Name)
	part := &opened{fsys: src.tree, tree: src.tree, backup: src.backup, path: []byte(mount)}
	src.closers = append(src.closers, part.close)
	content, err := a.filesDisk(ctx, part, target{vm: v.Name, disk: d.Name}, k, how)
	src.leftOut += part.leftOut
	return content, err
}

// installed is the file of the image that a disk was made from, or would be.
func (b *boots) installed(v *config.VM, d *config.Disk) (string, error) {
	in, ok, err := b.h.images.Installed(v.Name, d.Name)
	if err != nil {
		return "", err
	}
	if ok && in.Image == d.Image {
		version, err := b.h.images.Get(in.Image, in.Version)
		return b.h.images.DiskPath(version), err
	}
	version, err := b.h.images.Current(d.Image)
	if err != nil {
		return "", fmt.Errorf("%w: it is in no backup, and %w", errNoBoot, err)
	}
	return b.h.images.DiskPath(version), nil
}
