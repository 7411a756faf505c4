package cli

import (
	"context"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/escape"
)

// statReport is everything that a file's inode tells. Texts are escaped.
type statReport struct {
	Path   string      `json:"path"`
	Type   string      `json:"type"`
	Mode   string      `json:"mode"` // octal permission bits
	UID    uint32      `json:"uid"`
	GID    uint32      `json:"gid"`
	Inode  uint64      `json:"inode"`
	Links  uint32      `json:"links"`
	Size   int64       `json:"size"`
	Stored *int64      `json:"stored,omitempty"` // bytes of a file that are no hole
	Device string      `json:"device,omitempty"` // MAJOR:MINOR
	Target string      `json:"target,omitempty"`
	Access *time.Time  `json:"atime,omitempty"` // backups of files have none
	Modify time.Time   `json:"mtime"`
	Change time.Time   `json:"ctime"`
	Birth  *time.Time  `json:"birth,omitempty"`
	Flags  []string    `json:"flags,omitempty"`
	Xattrs []xattrLine `json:"xattrs,omitempty"`
}

// xattrLine is an extended attribute; its value is text, or hexadecimal behind 0x.
type xattrLine struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (a *app) statCmd() *cobra.Command {
	var l *looking
	c := &cobra.Command{
		Use:   "stat TARGET",
		Short: "Show all that is known of a file of a disk or of a backup",
		Long:  "Show all that is known of a file of a disk or of a backup: owner, mode, times,\nextended attributes.\n\n" + targetHelp,
		Args:  args(cobra.ExactArgs(1)),
		RunE:  func(c *cobra.Command, names []string) error { return a.stat(c.Context(), names[0], l) },
	}
	l = lookFlags(c)
	return c
}

func (a *app) stat(ctx context.Context, text string, l *looking) error {
	o, inode, err := a.openFileAt(ctx, text, l)
	if err != nil {
		return err
	}
	defer o.close()
	report, err := statOf(o.fsys, o.path, &inode)
	if err != nil {
		return err
	}
	if o.fsys == disk.Filesystem(o.tree) {
		report.Access = nil // a backup's files have that of the modification
	}
	if a.json {
		return a.printJSON(report)
	}
	a.printStat(report, inode.Mode)
	return nil
}

func statOf(fsys disk.Filesystem, path []byte, n *disk.Inode) (*statReport, error) {
	r := &statReport{
		Path: escape.Bytes(path), Type: typeName(n.Type()), Mode: fmt.Sprintf("%04o", n.Mode&0o7777),
		UID: n.UID, GID: n.GID, Inode: n.Ino, Links: n.Links, Size: n.Size,
		Modify: timeOf(n.Modify), Change: timeOf(n.Change), Flags: n.Flags.Names(),
	}
	access := timeOf(n.Access)
	r.Access = &access
	if n.Birth != (disk.Time{}) {
		birth := timeOf(n.Birth)
		r.Birth = &birth
	}
	switch n.Type() {
	case disk.ModeBlock, disk.ModeChar:
		r.Device = fmt.Sprintf("%d:%d", n.Rdev.Major, n.Rdev.Minor)
	case disk.ModeSymlink:
		target, err := fsys.Readlink(n.Ino)
		if err != nil {
			return nil, err
		}
		r.Target = escape.Bytes(target)
	case disk.ModeRegular:
		stored, err := storedBytes(fsys, n.Ino)
		if err != nil {
			return nil, err
		}
		r.Stored = &stored
	}
	xattrs, err := fsys.Xattrs(n.Ino)
	for _, x := range xattrs {
		r.Xattrs = append(r.Xattrs, xattrLine{Name: escape.Bytes(x.Name), Value: valueText(x.Value)})
	}
	return r, err
}

// storedBytes returns how much of a file is no hole.
func storedBytes(fsys disk.Filesystem, ino uint64) (stored int64, err error) {
	f, err := fsys.Open(ino)
	if err != nil {
		return 0, err
	}
	err = f.Extents(0, f.Size(), func(e disk.Extent) error {
		if e.Kind != disk.ExtentHole {
			stored += e.Length
		}
		return nil
	})
	return stored, err
}

func timeOf(t disk.Time) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// valueText shows a value as text if it is some, a NUL at its end aside.
func valueText(b []byte) string {
	text := b
	if n := len(b); n > 0 && b[n-1] == 0 {
		text = b[:n-1]
	}
	if !utf8.Valid(text) {
		return hexText(b)
	}
	for _, c := range text {
		if c < ' ' || c == 0x7f {
			return hexText(b)
		}
	}
	return escape.Bytes(text)
}

func (a *app) printStat(r *statReport, mode uint32) {
	line := func(name, format string, args ...any) { a.printf("%10s: %s\n", name, fmt.Sprintf(format, args...)) }
	line("path", "%s", r.Path)
	line("type", "%s", r.Type)
	if r.Target != "" {
		line("target", "%s", r.Target)
	}
	if r.Device != "" {
		line("device", "%s", r.Device)
	}
	line("size", "%d bytes", r.Size)
	if r.Stored != nil && *r.Stored < r.Size {
		line("stored", "%d bytes, the rest is holes", *r.Stored)
	}
	line("mode", "%s %s", r.Mode, modeText(mode))
	line("owner", "%d:%d", r.UID, r.GID)
	line("inode", "%d", r.Inode)
	line("links", "%d", r.Links)
	const layout = "2006-01-02 15:04:05.000000000 -0700"
	if r.Access != nil {
		line("accessed", "%s", r.Access.Format(layout))
	}
	line("modified", "%s", r.Modify.Format(layout))
	line("changed", "%s", r.Change.Format(layout))
	if r.Birth != nil {
		line("born", "%s", r.Birth.Format(layout))
	}
	for _, f := range r.Flags {
		line("flag", "%s", f)
	}
	for _, x := range r.Xattrs {
		line("xattr", "%s = %s", x.Name, x.Value)
	}
}
