package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/find"
	"github.com/drydock-vm/drydock/internal/pattern"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/round"
)

// findFlags are what a file must be, as the user writes it.
type findFlags struct {
	types        string
	newer, older string
	sizes        []string
}

func (a *app) findCmd() *cobra.Command {
	var flags findFlags
	l := new(looking)
	c := &cobra.Command{
		Use:   "find PATTERN [VM|VM@BACKUP|VM/DISK@BACKUP[:/PATH]]...",
		Short: "Find files in the backups, and say which backups have them",
		Long: `Find files in the backups of all machines, of some (VM), or in single backups
(VM@BACKUP), and say which backups have them. A file that did not change is one line,
with the first and the last backup that has it in this form.

A pattern is written as in .gitignore: without a slash it matches a name at any depth
(passwd, '*.conf'), with one it matches the whole path (/etc/*.conf, 'srv/**/*.db').

  drydock find 'letter*' web
  drydock find '*' web@latest --type file --size +100M
  drydock find '*.php' --newer 2026-11-20

A disk that a backup has as an image is searched where it is named, each by itself:

  drydock find 'letter*' db/store@latest`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			return a.find(c.Context(), names[0], names[1:], flags, l)
		},
	}
	f := c.Flags()
	f.StringVar(&flags.types, "type", "", "only these types: file, dir, symlink, block, char, fifo, socket, with commas between them")
	f.StringVar(&flags.newer, "newer", "", "modified after a time: 2026-11-24, 2026-11-24T03:00:00+01:00, or 36h or 7d ago")
	f.StringVar(&flags.older, "older", "", "modified before a time")
	f.StringArrayVar(&flags.sizes, "size", nil, "files of this size, at least (+10M) or at most (-1K); may be given twice")
	f.StringVar(&l.volume, "volume", "", "of a disk that is backed up as an image: the volume to search")
	f.StringArrayVar(&l.with, "with", nil, "another disk that the backup has as an image, on which the volume lies too; may be repeated")
	return c
}

func (a *app) find(ctx context.Context, text string, targets []string, flags findFlags, l *looking) error {
	opts, err := flags.options(a.now())
	if err != nil {
		return err
	}
	if opts.Names, err = pattern.Compile([]string{text}); err != nil {
		return &exitError{exitUsage, err}
	}
	backups, images, err := soughtTargets(targets)
	if err == nil && images == nil && (l.volume != "" || l.with != nil) {
		err = usageError("--volume and --with go with a disk that a backup has as an image: VM/DISK@BACKUP")
	}
	if err != nil {
		return err
	}
	p := &findPrinter{app: a}
	opts.Damaged = p.damage
	p.begin()
	if len(backups) > 0 || len(images) == 0 {
		err = a.findInBackups(ctx, p, backups, opts)
	}
	for _, t := range images {
		if err == nil {
			err = a.findInImage(ctx, p, t, opts, l)
		}
	}
	if err != nil {
		return err
	}
	p.end()
	if p.damaged > 0 {
		return &exitError{exitWarnings, fmt.Errorf("%d files or folders could not be read", p.damaged)}
	}
	return nil
}

// soughtTargets tells the disks that backups may have as images from whole backups.
func soughtTargets(texts []string) (backups, images []target, err error) {
	for _, text := range texts {
		t, err := parseTarget(text)
		switch {
		case err != nil:
			return nil, nil, err
		case t.wholeDisk():
			images = append(images, t)
		case t.image != "" || t.disk != "" || t.snapshot != "" || t.pathed:
			return nil, nil, usageError("%q is not VM, VM@BACKUP or VM/DISK@BACKUP: find searches backups", text)
		default:
			backups = append(backups, t)
		}
	}
	return backups, images, nil
}

// findInBackups searches the backups that the targets name; none are all.
func (a *app) findInBackups(ctx context.Context, p *findPrinter, targets []target, opts find.Options) error {
	repo, ctx, unlock, err := a.lockRepository(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	machines, err := a.sought(ctx, repo, targets)
	if err != nil {
		return err
	}
	for _, m := range machines {
		p.vm, p.snapshots = m.vm, m.snapshots
		if err := find.Run(ctx, repo, m.snapshots, opts, p.file); err != nil {
			return fmt.Errorf("find in the backups of %s: %w", escape.Line(m.vm), err)
		}
	}
	return nil
}

// findInImage searches a disk that a backup has as an image, or the files of it that
// the backup has.
func (a *app) findInImage(ctx context.Context, p *findPrinter, t target, opts find.Options, l *looking) error {
	o, err := a.openTarget(ctx, t, l)
	if err != nil {
		return err
	}
	defer o.close()
	p.vm, p.snapshots = t.vm, []*repository.Snapshot{o.backup}
	if o.whole != nil {
		p.vm += "/" + t.disk
	}
	if err := find.InFilesystem(ctx, o.fsys, o.path, opts, p.file); err != nil {
		return fmt.Errorf("find in %s/%s@%s: %w", escape.Line(t.vm), escape.Line(t.disk), t.backup, err)
	}
	return nil
}

// soughtMachine is a VM and the backups of it that are searched.
type soughtMachine struct {
	vm        string
	snapshots []*repository.Snapshot // the oldest first
}

// sought finds the backups that the targets name; none are all.
func (a *app) sought(ctx context.Context, repo *repository.Repository, targets []target) ([]*soughtMachine, error) {
	all, unread := repo.Snapshots(ctx)
	if unread != nil {
		fmt.Fprintf(a.stderr, "drydock: some backups are not searched: %s\n", escape.Line(unread.Error()))
	}
	all = slices.DeleteFunc(all, func(s *repository.Snapshot) bool { return !slices.Contains(s.Tags, backup.TagProgram) })
	wanted := map[string]map[repository.ID]bool{} // by VM; nil is all
	for _, t := range targets {
		if t.backup == "" {
			if !slices.ContainsFunc(all, func(s *repository.Snapshot) bool { return s.Hostname == t.vm }) {
				return nil, fmt.Errorf("%w: %s has none (drydock backups list shows those of all VMs)", restore.ErrNoBackup, t.vm)
			}
			wanted[t.vm] = nil
			continue
		}
		s, err := restore.Find(ctx, repo, t.vm, t.backup)
		if err != nil {
			return nil, err
		}
		if ids, there := wanted[t.vm]; !there {
			wanted[t.vm] = map[repository.ID]bool{s.ID: true}
		} else if ids != nil {
			ids[s.ID] = true
		}
	}
	var machines []*soughtMachine
	for _, s := range all {
		ids, named := wanted[s.Hostname]
		if len(targets) > 0 && (!named || ids != nil && !ids[s.ID]) {
			continue
		}
		i := slices.IndexFunc(machines, func(m *soughtMachine) bool { return m.vm == s.Hostname })
		if i < 0 {
			i, machines = len(machines), append(machines, &soughtMachine{vm: s.Hostname})
		}
		machines[i].snapshots = append(machines[i].snapshots, s)
	}
	slices.SortFunc(machines, func(a, b *soughtMachine) int { return strings.Compare(a.vm, b.vm) })
	return machines, nil
}

// soughtTypes are the types of node by the names of drydock ls.
var soughtTypes = map[string]repository.NodeType{
	"file": repository.NodeFile, "dir": repository.NodeDir, "symlink": repository.NodeSymlink, "block": repository.NodeDev,
	"char": repository.NodeCharDev, "fifo": repository.NodeFIFO, "socket": repository.NodeSocket,
}

func nodeTypeName(t repository.NodeType) string {
	for name, known := range soughtTypes {
		if known == t {
			return name
		}
	}
	return "unknown"
}

func (f *findFlags) options(now time.Time) (o find.Options, err error) {
	for name := range strings.SplitSeq(f.types, ",") {
		t, ok := soughtTypes[name]
		if !ok && f.types != "" {
			return o, usageError("--type %q: a type is file, dir, symlink, block, char, fifo or socket", name)
		}
		if ok {
			o.Types = append(o.Types, t)
		}
	}
	if o.Newer, err = pointInTime("--newer", f.newer, now); err != nil {
		return o, err
	}
	if o.Older, err = pointInTime("--older", f.older, now); err != nil {
		return o, err
	}
	for _, s := range f.sizes {
		n, err := parseSize(strings.TrimLeft(s, "+-"))
		if err != nil {
			return o, usageError("--size %q: a size is 100, 10K, 5M, 1G or 1T, with + (at least) or - (at most) in front", s)
		}
		if !strings.HasPrefix(s, "-") {
			o.MinSize = &n
		}
		if !strings.HasPrefix(s, "+") {
			o.MaxSize = &n
		}
	}
	return o, nil
}

// parseSize reads a size in bytes, with a unit of 1024 and its powers.
func parseSize(s string) (uint64, error) {
	const units = "KMGT"
	shift := 0
	if n := len(s); n > 0 {
		if i := strings.IndexByte(units, s[n-1]); i >= 0 {
			s, shift = s[:n-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(s, 10, 64-1-shift)
	return n << shift, err
}

// pointInTime reads a date, a time, or how long ago it was.
func pointInTime(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.DateOnly, time.DateTime, time.RFC3339} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, usageError("%s %q: a time is 2026-11-24, 2026-11-24T03:00:00+01:00, or how long ago: 36h, 7d", flag, s)
}

// findPrinter prints files as they are found, also as JSON.
type findPrinter struct {
	app       *app
	vm        string
	snapshots []*repository.Snapshot
	list      jsonList
	damaged   int
}

// foundFile is one path in drydock find --json.
type foundFile struct {
	VM       string         `json:"vm"`
	Path     string         `json:"path"` // escaped
	Versions []foundVersion `json:"versions"`
}

// foundVersion is a file as some backups have it.
type foundVersion struct {
	Type    string    `json:"type"`
	Size    uint64    `json:"size"`
	Mode    string    `json:"mode"`
	UID     uint32    `json:"uid"`
	GID     uint32    `json:"gid"`
	Modify  time.Time `json:"mtime"`
	Target  string    `json:"target,omitempty"` // of a symlink, escaped
	Backups []string  `json:"backups"`          // IDs, the oldest first
}

func (p *findPrinter) begin() {
	if p.app.json {
		p.app.printf("[")
	}
}

func (p *findPrinter) end() {
	if p.app.json {
		p.app.printf("\n]\n")
	}
}

func (p *findPrinter) file(f *find.File) error {
	if p.app.json {
		return p.fileJSON(f)
	}
	for _, v := range f.Versions {
		size := ""
		if v.Node.Type == repository.NodeFile {
			size = round.Bytes(int64(min(v.Node.Size, 1<<62)))
		}
		_, err := fmt.Fprintf(p.app.stdout, "%s %10s %s  %s:%s  %s\n", modeText(repository.UnixMode(v.Node.Mode)), size, v.Node.ModTime.Local().Format("2006-01-02 15:04"),
			escape.Line(p.vm), escape.Bytes(f.Path), p.where(v.Snapshots))
		if err != nil {
			return err
		}
	}
	return nil
}

// where says which backups have a version.
func (p *findPrinter) where(in []int) string {
	name := func(i int) string {
		s := p.snapshots[i]
		return s.ID.Short() + " of " + s.Time.Local().Format("2006-01-02 15:04")
	}
	first, last := in[0], in[len(in)-1]
	switch {
	case len(in) == 1:
		return "in " + name(first)
	case last-first+1 == len(in):
		return fmt.Sprintf("in %d, %s to %s", len(in), name(first), name(last))
	}
	return fmt.Sprintf("in %d, between %s and %s", len(in), name(first), name(last))
}

func (p *findPrinter) fileJSON(f *find.File) error {
	out := foundFile{VM: p.vm, Path: escape.Bytes(f.Path)}
	for _, v := range f.Versions {
		n := v.Node
		line := foundVersion{Size: n.Size, Mode: fmt.Sprintf("%04o", repository.UnixMode(n.Mode)&0o7777), UID: n.UID, GID: n.GID,
			Modify: n.ModTime, Target: escape.Bytes([]byte(n.LinkTarget)), Type: nodeTypeName(n.Type)}
		for _, i := range v.Snapshots {
			line.Backups = append(line.Backups, p.snapshots[i].ID.String())
		}
		out.Versions = append(out.Versions, line)
	}
	return p.list.add(p.app.stdout, out)
}

func (p *findPrinter) damage(at []byte, err error) {
	p.damaged++
	fmt.Fprintf(p.app.stderr, "drydock: %s: %s: %s\n", escape.Line(p.vm), escape.Bytes(at), escape.Line(err.Error()))
}
