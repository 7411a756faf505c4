package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/image"
	"github.com/drydock-vm/drydock/internal/rebuild"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/round"
)

// vmFlags are the flags of drydock restore vm.
type vmFlags struct {
	to                        string
	allow, without, sizes     []string
	overwrite, dryRun, start  bool
	withoutConfig             bool
	repository, key, password string // where it is, and the files with its key and its login
	state                     string
	writer                    config.Writer
}

func (a *app) restoreVMCmd() *cobra.Command {
	var o vmFlags
	c := &cobra.Command{
		Use:   "vm VM[@BACKUP] (--to FOLDER | --allow FOLDER…)",
		Short: "Bring a whole VM back: disks, unit, firmware variables, configuration",
		Long: `Bring a whole VM back from a backup, the newest unless one is named, to a host that
needs nothing but the repository and its key:

  drydock restore vm web --repository sftp:backup@nas:/srv/drydock \
      --password-file key --dry-run

prints what would be written where. Disks come back with their filesystems, UUIDs
and labels, root disks as the version of the image that they had, and beside them
come the unit with its drop-ins, the UEFI variables, the kernel, and the VM's part
of drydock's configuration.

The backup says where each file comes, and it may be a stranger's: without --to,
which puts everything below a folder, nothing is written outside of the folders
that --allow names. A file that is there is never replaced, unless --overwrite is
given, which keeps it as FILE.previous, and stops if there is one. A restore that was
cut off is gone on with when it is started again. It takes root.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error { return a.restoreVM(c.Context(), names[0], o) },
	}
	f := c.Flags()
	f.StringVar(&o.to, "to", "", "folder that everything comes below: /etc/x becomes FOLDER/etc/x")
	f.StringArrayVar(&o.allow, "allow", nil, "folder that files may come into, at their own paths (can be given again)")
	f.BoolVar(&o.overwrite, "overwrite", false, "replace what is there, and keep it as FILE.previous")
	f.StringArrayVar(&o.without, "without", nil, "disk to leave out (can be given again)")
	f.StringArrayVar(&o.sizes, "size", nil, "DISK=SIZE, such as data=20G: a larger filesystem than the disk had (can be given again)")
	f.BoolVar(&o.withoutConfig, "without-config", false, "leave drydock's configuration as it is, and write the VM's part of it beside it")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "print what would be done, and change nothing")
	f.BoolVar(&o.start, "start", false, "start the VM when all is there as it was")
	f.StringVar(&o.repository, "repository", "", "where the repository is, on a host without a configuration")
	f.StringVar(&o.key, "password-file", "", "file with the repository's key")
	f.StringVar(&o.password, "credentials-file", "", "file with the login at the repository's server")
	f.StringVar(&o.state, "state", "", "folder for drydock's own state and the image store, in place of "+config.Empty().State)
	f.StringVar(&o.writer.Kernel, "kernel", "", "kernel of the machine that writes XFS and btrfs; by default this host's")
	f.StringVar(&o.writer.Modules, "modules", "", "folder of that kernel's modules; by default that in /lib/modules")
	return c
}

func (o *vmFlags) check() error {
	switch {
	case (o.repository == "") != (o.key == ""):
		return usageError("--repository and --password-file go together")
	case o.password != "" && o.repository == "":
		return usageError("--credentials-file is for a --repository")
	case o.state != "" && o.repository == "":
		return usageError("--state is for a host without a configuration, like --repository")
	case o.to != "" && o.allow != nil:
		return usageError("--to puts everything below a folder, --allow to its own path: give one of them")
	case o.to != "" && o.start:
		return usageError("--start is for a VM at its own paths, and not --to a folder")
	case o.withoutConfig && o.start:
		return usageError("--start is for a VM that is in the configuration, and not --without-config")
	case o.to == "" && o.allow == nil && !o.dryRun:
		return usageError("--to is missing: a folder; or --allow, for each folder of this host that files may come into (--dry-run shows which there are)")
	}
	for _, p := range append(slices.Clone(o.allow), o.to) {
		if strings.ContainsFunc(p, func(r rune) bool { return r < ' ' }) {
			return usageError("%q cannot be a folder", p)
		}
	}
	return nil
}

func (a *app) restoreVM(ctx context.Context, text string, o vmFlags) error {
	if !strings.Contains(text, "@") {
		text += "@" + restore.Latest
	}
	name, err := parseBackup(text)
	if err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	if os.Geteuid() != 0 && !o.dryRun {
		return errors.New("restore vm gives files their owners, and takes root")
	}
	h, err := a.vmHost(o)
	if err != nil {
		return err
	}
	repo, err := h.openRepository(ctx)
	if err != nil {
		return err
	}
	lock, err := repo.Lock(ctx, false)
	if err != nil {
		return err
	}
	defer func() {
		if err := lock.Unlock(context.WithoutCancel(ctx)); err != nil {
			a.warn(err)
		}
	}()
	return h.restoreVM(lock.Context(), repo, name, o)
}

// restoreVM makes the plan, and does what it says.
func (h *host) restoreVM(ctx context.Context, repo *repository.Repository, name backupName, o vmFlags) error {
	if !o.dryRun && o.to == "" { // before the plan, which looks at what others change
		alone, err := h.lock("restore vm")
		if err != nil {
			return err
		}
		defer alone.Release()
	}
	plan, d, err := h.planVM(ctx, repo, name, o)
	if err != nil {
		return err
	}
	if err := h.app.runPlan(ctx, plan, o); err != nil || o.dryRun {
		return err
	}
	if !o.start {
		h.app.tellDomain(d)
		return nil
	}
	return h.app.startRestored(ctx, d)
}

// tellDomain says what makes a restored domain known to libvirt, which reads its files
// when it starts.
func (a *app) tellDomain(d *definition.Definition) {
	for _, f := range d.Files {
		if f.Role == definition.RoleDomain && !a.json {
			a.printf("libvirt knows the domain after virsh define %s (--start does that, too)\n", escape.Line(f.Path))
		}
	}
}

// vmHost is this host: as its configuration says, or as the flags say where it has
// none.
func (a *app) vmHost(o vmFlags) (*host, error) {
	c, err := config.Load(a.configPath)
	switch {
	case o.repository == "" && errors.Is(err, fs.ErrNotExist):
		return nil, usageError("there is no configuration at %s: say where the backups are, with --repository and --password-file", a.configPath)
	case errors.Is(err, fs.ErrNotExist):
		c = config.Empty()
	case err != nil:
		return nil, &exitError{exitUsage, err}
	}
	if o.state != "" {
		if c.State, err = filepath.Abs(o.state); err != nil {
			return nil, err
		}
	}
	if o.repository != "" {
		if c.Repository, err = config.NewRepository(o.repository, o.key, o.password); err != nil {
			return nil, usageError("--repository %w", err)
		}
	}
	return &host{app: a, config: c}, nil
}

// planVM makes the plan.
func (h *host) planVM(ctx context.Context, repo *repository.Repository, name backupName, o vmFlags) (*rebuild.Plan, *definition.Definition, error) {
	s, err := restore.Find(ctx, repo, name.vm, name.spec)
	if err != nil {
		return nil, nil, err
	}
	tree, err := restore.OpenTree(ctx, repo, s)
	if err != nil {
		return nil, nil, err
	}
	d, err := definition.Load(tree, s)
	if err != nil {
		return nil, nil, err
	}
	opts := rebuild.Options{
		Snapshot: s, Tree: tree, Overwrite: o.overwrite, Without: o.without,
		Read: h.readNew,
	}
	if opts.Sizes, err = diskSizes(o.sizes); err != nil {
		return nil, nil, err
	}
	if opts.Writer, err = writerOf(h.config, o.writer); err != nil {
		return nil, nil, err
	}
	for _, p := range o.allow {
		if p, err = filepath.Abs(p); err != nil {
			return nil, nil, err
		}
		opts.Allow = append(opts.Allow, p)
	}
	if o.to != "" {
		if opts.To, err = filepath.Abs(o.to); err != nil {
			return nil, nil, err
		}
	}
	opts.State = filepath.Join(opts.To, h.config.State)
	opts.Store = image.New(image.Options{Dir: filepath.Join(opts.State, "images"), Now: h.app.now})
	if opts.Config, err = h.newConfig(tree, d, opts.To, o.withoutConfig); err != nil {
		return nil, nil, err
	}
	est := newEstimate(h.app)
	opts.Progress = est.tell
	plan, err := rebuild.Make(d, opts)
	return plan, d, err
}

// diskSizes reads DISK=SIZE.
func diskSizes(list []string) (map[string]int64, error) {
	sizes := make(map[string]int64, len(list))
	for _, text := range list {
		name, size, _ := strings.Cut(text, "=")
		n, err := parseSize(size)
		if err != nil || n == 0 || name == "" {
			return nil, usageError("--size %q: it is DISK=SIZE, and a size is 500M, 20G or 1T", text)
		}
		sizes[name] = int64(n)
	}
	return sizes, nil
}

// readNew opens the filesystem of a new image in a confined reader.
func (h *host) readNew(ctx context.Context, image *os.File) (disk.Filesystem, func(), error) {
	return h.app.readImageAs(ctx, sandboxOptions(h.config, "restore"), image)
}

// runPlan prints the plan, and does what it says.
func (a *app) runPlan(ctx context.Context, plan *rebuild.Plan, o vmFlags) error {
	problems := plan.Problems()
	if o.dryRun || problems != nil {
		if err := a.printPlan(plan); err != nil {
			return err
		}
	}
	switch {
	case problems != nil && o.dryRun:
		return &exitError{exitWarnings, fmt.Errorf("it cannot be restored like this: %d problems", len(problems))}
	case problems != nil:
		return fmt.Errorf("nothing was restored: %s", escape.Line(strings.Join(problems, "; ")))
	case o.dryRun:
		return nil
	}
	rep, err := plan.Run(ctx)
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(rep)
	} else {
		err = a.printPlan(plan)
	}
	if err != nil {
		return err
	}
	for _, w := range rep.Warnings {
		fmt.Fprintf(a.stderr, "drydock: %s\n", w)
	}
	switch {
	case rep.WarningsTotal > 0 && o.start:
		return &exitError{exitWarnings, fmt.Errorf("restored, with %d warnings, and not started (drydock start %s does that)", rep.WarningsTotal, plan.VM)}
	case rep.WarningsTotal > 0:
		return &exitError{exitWarnings, fmt.Errorf("restored, with %d warnings", rep.WarningsTotal)}
	case !a.json:
		a.printf("%s is restored\n", plan.VM)
	}
	return nil
}

// printPlan prints what is done, or was.
func (a *app) printPlan(plan *rebuild.Plan) error {
	if a.json {
		return a.printJSON(plan)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tFROM\tSIZE\tACTION\tPATH\t")
	for _, it := range plan.Items {
		detail := it.Detail
		if it.Problem != "" {
			detail = "PROBLEM: " + it.Problem
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", escape.Line(it.What), it.From, round.Bytes(it.Size), it.Action, escape.Line(it.Path), escape.Line(detail))
	}
	return w.Flush()
}

// startRestored starts a VM that was restored.
func (a *app) startRestored(ctx context.Context, d *definition.Definition) error {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	vms, err := h.pick([]string{d.VM})
	if err != nil {
		return err
	}
	if r, ok := vms[0].Machine.(reloader); ok {
		if err := r.Reload(ctx); err != nil {
			return err
		}
	}
	if err := vms[0].Machine.Start(ctx); err != nil {
		return err
	}
	if !a.json {
		a.printf("%s is started\n", d.VM)
	}
	return nil
}

// reloader is a machine whose files have to be read again when they are new.
type reloader interface {
	Reload(ctx context.Context) error
}
