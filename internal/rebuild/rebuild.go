// Package rebuild brings a whole VM back from a backup and nothing else: its disks, the
// files of the host that belong to it, and its part of the configuration.
//
//	plan, err := rebuild.Make(definition, rebuild.Options{…})
//	if plan.Problems() == nil {
//		report, err := plan.Run(ctx)
//	}
//
// A disk that was backed up as an image is written back; one whose files were gets a
// filesystem made anew, of the same type, size, UUID and label, in its place on the disk,
// around which there is what was there (partitions, boot loader, LVM); one that was made
// from a version of an image is made from that version, which goes into the image
// store too; and one that was left out is made empty.
//
// # What it promises
//
// The repository may be a stranger's. Nothing is written outside of the folder that
// the VM is restored to, or of those that the user allows, and nothing through a
// symlink out of one. What is there already is not touched, unless that is asked for,
// and then it is kept as PATH.previous, which replaces nothing either. Run does what the plan says. A disk or a file
// has its name when it is whole and on stable storage. A run that was cut off is gone
// on with by making the plan again: what it has restored is recorded in a file of the
// state, and known until somebody writes to it.
package rebuild

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/definition"
	"github.com/drydock-vm/drydock/internal/image"
	"github.com/drydock-vm/drydock/internal/newimage"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/writervm"
)

// Options say what is restored, and where to. To or Allow, Snapshot, Tree, Store,
// State and Read are required.
type Options struct {
	Snapshot *repository.Snapshot
	Tree     *restore.Tree // of Snapshot

	// To is a folder that everything comes below: /etc/x becomes To/etc/x. Without
	// it everything comes to its own path, if that lies in one of Allow.
	To    string
	Allow []string
	// Overwrite replaces what is there, which is kept as PATH.previous.
	Overwrite bool
	// Without names disks that are not restored.
	Without []string
	// Sizes are those of disks that get a larger filesystem than they had, by their
	// names, in bytes.
	Sizes map[string]int64

	// Config is the file that drydock's part of the configuration is written to.
	Config Config

	Store *image.Store
	// State is drydock's folder of this host, or below To: what was restored is
	// recorded there.
	State string
	// Read opens the filesystem on a raw image, in a confined reader.
	Read func(ctx context.Context, image *os.File) (fsys disk.Filesystem, stop func(), err error)
	// Writer is the machine that writes XFS and btrfs.
	Writer writervm.Options
	// Progress is told what is being done, unless it is nil: of how much how many
	// bytes are done.
	Progress func(what string, done, of int64)
}

// Config is what becomes of drydock's configuration.
type Config struct {
	Path string // absolute, as the user named it
	Was  []byte // what is there, and Text was made from; nil where nothing is
	Text []byte // the new content; nil leaves the file as it is
	Note string // why
	// Beside is drydock's configuration if Path is another file, for a VM's part that is
	// not put into it.
	Beside string
	// Problem is why it must not be written.
	Problem string
}

// Action is what becomes of an item.
type Action string

// The actions.
const (
	Write   Action = "write"
	Replace Action = "replace" // what is there becomes PATH.previous
	There   Action = "there"   // already, as it should be
	LeftOut Action = "left out"
)

// Source is where the content of an item comes from.
type Source string

// The sources.
const (
	FromFiles   Source = "files"   // of the guest: a new filesystem
	FromImage   Source = "image"   // the disk as the guest saw it
	FromVersion Source = "version" // of an image
	FromNothing Source = "nothing" // an empty disk
	FromFile    Source = "file"    // of the host
	FromConfig  Source = "configuration"
)

// Item is one file that is restored.
type Item struct {
	What   string `json:"what"` // "disk data", "unit"
	Path   string `json:"path"` // where it comes
	From   Source `json:"from"`
	Action Action `json:"action"`
	Size   int64  `json:"size"`             // bytes; of a disk what the guest sees
	Detail string `json:"detail,omitempty"` // for people; hostile text
	// Problem is why it cannot be restored, with what to do.
	Problem string `json:"problem,omitempty"`

	place place
	disk  *definition.Disk
	file  *definition.File
	was   backup.DiskFilesystem // of a disk's files
}

// Plan is what a restore of a VM does.
type Plan struct {
	VM     string  `json:"vm"`
	Backup string  `json:"backup"`
	Items  []*Item `json:"items"`

	opts   Options
	record record
}

// Make makes the plan. Nothing is changed.
func Make(d *definition.Definition, o Options) (*Plan, error) {
	p := &Plan{VM: d.VM, Backup: o.Snapshot.ID.String(), opts: o}
	if err := p.loadRecord(); err != nil {
		return nil, err
	}
	for _, name := range o.Without {
		if d.Disk(name) == nil {
			return nil, fmt.Errorf("%s has no disk %q to leave out", d.VM, name)
		}
	}
	for name := range o.Sizes {
		if d.Disk(name) == nil {
			return nil, fmt.Errorf("%s has no disk %q to give another size", d.VM, name)
		}
	}
	for i := range d.Disks {
		p.Items = append(p.Items, p.diskItem(&d.Disks[i]))
	}
	for i := range d.Files {
		f := &d.Files[i]
		it := &Item{What: string(f.Role), From: FromFile, Action: Write, Size: f.Size, file: f}
		p.locate(it, f.Path)
		p.Items = append(p.Items, it)
	}
	p.Items = append(p.Items, p.configItem())
	for _, it := range p.Items {
		if err := p.look(it); err != nil {
			return nil, err
		}
		if it.From != FromConfig && (it.Path == o.Config.Path || it.Path == o.Config.Beside) {
			it.Problem = "that is drydock's own configuration, whose commands are executed: no backup of drydock says so"
		}
	}
	return p, nil
}

// Problems says what keeps the plan from being run, a line for each item.
func (p *Plan) Problems() []string {
	var out []string
	for _, it := range p.Items {
		if it.Problem != "" {
			out = append(out, fmt.Sprintf("%s: %s: %s", it.What, it.Path, it.Problem))
		}
	}
	return out
}

// diskItem decides how a disk comes back.
func (p *Plan) diskItem(d *definition.Disk) *Item {
	it := &Item{What: "disk " + d.Name, Size: d.Size, disk: d, Action: Write}
	p.locate(it, d.Path)
	s := p.opts.Snapshot
	_, files := backup.DiskMount(s, d.Name)
	switch {
	case slices.Contains(p.opts.Without, d.Name):
		it.Action, it.Problem = LeftOut, ""
	case p.opts.Sizes[d.Name] != 0 && (!files || wholedisk.Has(s, d.Name) || d.Partition != 0 || d.Volume != ""):
		it.Problem = "it cannot get another size: only a filesystem can that is made of files, and fills its disk"
	case wholedisk.Has(s, d.Name):
		it.From, it.Detail = FromImage, d.Format
	case wholedisk.HasVersion(s, d.Name) && d.Release != nil:
		it.From, it.Detail = FromVersion, fmt.Sprintf("%s, %s %s", d.Format, d.Release.Image, d.Release.Version)
	case files:
		p.filesItem(it)
	case d.Image != "":
		it.From, it.Problem = FromNothing, "the backup has neither its files nor the version of image "+d.Image+
			" that it was made from (--without "+d.Name+" leaves it out: make it from an image then)"
	case d.Size == 0:
		it.From, it.Problem = FromNothing, "the backup of this disk is off, and does not tell how large it was (--without "+d.Name+" leaves it out: make one)"
	default:
		it.From, it.Detail = FromNothing, d.Format+", empty: the backup of this disk is off"
	}
	return it
}

// filesItem is of a disk that gets a new filesystem.
func (p *Plan) filesItem(it *Item) {
	d := it.disk
	it.From = FromFiles
	out := " (--without " + d.Name + " leaves it out; drydock restore " + p.VM + "@" + p.opts.Snapshot.ID.Short() + " --to FOLDER has its files)"
	was, known := backup.FilesystemOf(p.opts.Snapshot, d.Name)
	if !known || was.Size == 0 {
		it.Problem = "the backup does not tell what filesystem it had" + out
		return
	}
	if want := p.opts.Sizes[d.Name]; want != 0 {
		if want < max(was.Size, d.Size) {
			it.Problem = fmt.Sprintf("it had %d bytes: --size makes it larger", max(was.Size, d.Size))
			return
		}
		was.Size, it.Size = want, want
	}
	it.was = was
	it.Detail = fmt.Sprintf("%s, %s", d.Format, was.Type)
	if err := newimage.Can(newimage.Options{Filesystem: was.Type, Size: was.Size, Writer: p.opts.Writer}); err != nil {
		it.Problem = err.Error() + out
		return
	}
	if err := CheckLayout(p.opts.Snapshot, d, was.Size); err != nil {
		it.Problem = err.Error() + out
		return
	}
	if d.Partition != 0 || d.Volume != "" {
		it.Detail += " in " + cmp.Or(d.Volume, fmt.Sprintf("partition %d", d.Partition))
	}
}

// configItem is of drydock's configuration.
func (p *Plan) configItem() *Item {
	c := p.opts.Config
	it := &Item{What: "drydock's configuration", From: FromConfig, Path: c.Path, Detail: c.Note, Size: int64(len(c.Text)), Problem: c.Problem}
	if c.Text == nil {
		it.Action = There
	}
	// The user named it, and not the repository.
	base := filepath.Dir(c.Path)
	if p.opts.To != "" && within(p.opts.To, c.Path) {
		base = p.opts.To
	}
	it.place = place{base: base, rel: strings.TrimPrefix(strings.TrimPrefix(c.Path, base), "/")}
	return it
}

// locate sets where an item comes.
func (p *Plan) locate(it *Item, path string) {
	var err error
	if it.place, err = p.opts.place(path); err != nil {
		it.Path, it.Problem = path, err.Error()
		return
	}
	it.Path = it.place.path()
}

// look looks at what is where an item comes, if it may come there: a stranger does not
// choose what root reads, which in /proc and /sys can do something.
func (p *Plan) look(it *Item) error {
	if it.Action == LeftOut || it.From == FromConfig && it.Action == There || it.place.base == "" {
		return nil
	}
	info, err := os.Lstat(it.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		it.Action = Write
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		it.Problem = "something that is no file is there already: move it away"
		return nil
	}
	there, err := p.restored(it)
	switch {
	case err != nil:
		return err
	case there:
		it.Action, it.Problem = There, ""
	case it.From == FromConfig:
		it.Action = Replace
	case p.opts.Overwrite:
		it.Action = Replace
		if it.Problem == "" {
			it.Problem = it.lost(info)
		}
	case it.Problem == "":
		it.Problem = "a file is there already (--overwrite keeps it as " + filepath.Base(it.Path) + previous + ")"
	}
	return nil
}

// previous is behind the name of what was replaced.
const previous = ".previous"

// lost says what would be lost if the file that is there were kept: one that was kept
// before it, which may be the only one with what the VM has written. A run that was cut
// off between two steps has kept the file already.
func (it *Item) lost(there fs.FileInfo) string {
	kept, err := os.Lstat(it.Path + previous)
	if errors.Is(err, fs.ErrNotExist) || err == nil && os.SameFile(kept, there) {
		return ""
	}
	return "what is there would be kept as " + filepath.Base(it.Path) + previous + ", and a file of that name is there already: move it away"
}
