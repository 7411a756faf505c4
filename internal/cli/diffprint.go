package cli

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/diff"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/round"
)

// diffPrinter prints changes as they are found, also as JSON: there may be
// millions.
type diffPrinter struct {
	app  *app
	at   string // where in the guest the compared trees lie
	list jsonList
}

// diffLine is one change in drydock diff --json.
type diffLine struct {
	Path   string    `json:"path"`   // escaped
	Change string    `json:"change"` // added, removed, changed
	What   []string  `json:"what,omitempty"`
	Before *diffFile `json:"before,omitempty"`
	After  *diffFile `json:"after,omitempty"`
}

// diffFile is what a file was, or is.
type diffFile struct {
	Type   string    `json:"type"`
	Size   int64     `json:"size"`
	Mode   string    `json:"mode"`
	UID    uint32    `json:"uid"`
	GID    uint32    `json:"gid"`
	Modify time.Time `json:"mtime"`
}

func newDiffFile(n *disk.Inode) *diffFile {
	if n == nil {
		return nil
	}
	return &diffFile{Type: typeName(n.Type()), Size: fileSize(n), Mode: fmt.Sprintf("%04o", n.Mode&0o7777), UID: n.UID, GID: n.GID, Modify: timeOf(n.Modify)}
}

// fileSize is the size of a regular file. That of a folder means nothing.
func fileSize(n *disk.Inode) int64 {
	if n.Type() != disk.ModeRegular {
		return 0
	}
	return n.Size
}

var changeNames = map[diff.Kind]string{diff.Added: "added", diff.Removed: "removed", diff.Changed: "changed"}

func (p *diffPrinter) begin(before, after string) {
	if p.app.json {
		names, _ := json.Marshal([]string{before, after}) // strings have no error
		p.app.printf("{\"targets\": %s, \"changes\": [", names)
	}
}

// text is a path as the guest sees it, escaped.
func (p *diffPrinter) text(below []byte) string {
	at := strings.TrimSuffix(path.Join("/", p.at), "/")
	if string(below) == "/" && at != "" {
		below = nil
	}
	return escape.Bytes(slices.Concat([]byte(at), below))
}

func (p *diffPrinter) change(c *diff.Change) error {
	if !p.app.json {
		_, err := fmt.Fprintf(p.app.stdout, "%s %s  %s\n", mark(c), p.text(c.Path), details(c))
		return err
	}
	return p.list.add(p.app.stdout, diffLine{
		Path: p.text(c.Path), Change: changeNames[c.Kind], What: c.What.Names(),
		Before: newDiffFile(c.Before), After: newDiffFile(c.After),
	})
}

// mark is restic's.
func mark(c *diff.Change) string {
	switch {
	case c.Kind == diff.Added:
		return "+"
	case c.Kind == diff.Removed:
		return "-"
	case c.What&diff.Type != 0:
		return "T"
	case c.What&(diff.Content|diff.Target|diff.Device) != 0:
		return "M"
	}
	return "U"
}

// details is what differs, with the sizes.
func details(c *diff.Change) string {
	switch c.Kind {
	case diff.Added:
		return sizeText(c.After)
	case diff.Removed:
		return sizeText(c.Before)
	}
	a, b := c.Before, c.After
	switch {
	case c.What&diff.Type != 0:
		return fmt.Sprintf("type (%s, now %s)", sizeText(a), sizeText(b))
	case a.Size != b.Size && c.What&diff.Content != 0:
		return fmt.Sprintf("%s (%s, now %s)", c.What, sizeText(a), sizeText(b))
	case c.What&diff.Mode != 0:
		return fmt.Sprintf("%s (%04o, now %04o)", c.What, a.Mode&0o7777, b.Mode&0o7777)
	case c.What&diff.Owner != 0:
		return fmt.Sprintf("%s (%d:%d, now %d:%d)", c.What, a.UID, a.GID, b.UID, b.GID)
	}
	return c.What.String()
}

func sizeText(n *disk.Inode) string {
	if n.Type() != disk.ModeRegular {
		return typeName(n.Type())
	}
	return round.Bytes(n.Size)
}

func (p *diffPrinter) damaged(path []byte, err error) {
	fmt.Fprintf(p.app.stderr, "drydock: %s: %s\n", p.text(path), escape.Line(err.Error()))
}

func (p *diffPrinter) end(s *diff.Summary) error {
	if p.app.json {
		text, err := json.Marshal(s)
		if err != nil {
			return err
		}
		p.app.printf("\n], \"summary\": %s}\n", text)
		return nil
	}
	if !s.Differs() {
		p.app.printf("no differences\n")
		return nil
	}
	count := func(c diff.Count) string {
		return fmt.Sprintf("%d files of %s, %d folders, %d others", c.Files, round.Bytes(c.Bytes), c.Dirs, c.Others)
	}
	p.app.printf("added:   %s\nremoved: %s\nchanged: %s (%d with other content)\n",
		count(s.Added), count(s.Removed), count(s.Changed), s.Content.Files)
	return nil
}
