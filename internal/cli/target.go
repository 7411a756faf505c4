package cli

import (
	"strings"
)

// target is a parsed TARGET: what to look into, and where.
//
//	PATH.qcow2  .raw  .img  .iso        a disk image
//	VM  VM/DISK                         the disks of a VM that is off
//	VM@BACKUP  VM/DISK@BACKUP           a backup: latest, an ID, or a date
//	VM@                                 all backups, each a folder
//
// Behind it #SNAPSHOT names a qcow2 internal snapshot, and :/PATH a path in
// the guest.
type target struct {
	image    string // path of a disk image, or ""
	format   string // of image
	vm, disk string
	backup   string
	history  bool // all backups of vm
	snapshot string
	path     []byte // absolute; "/" where none is given
	pathed   bool   // a path is given, be it "/"
}

// ofBackup reports whether the target is one in the repository.
func (t *target) ofBackup() bool { return t.backup != "" || t.history }

// wholeDisk reports whether the target can be a disk that a backup has as an image.
func (t *target) wholeDisk() bool { return t.backup != "" && t.disk != "" }

// formats are the endings by which a path of a disk image is told from a VM.
// The name is the user's, not the guest's: the content is never asked.
var formats = map[string]string{".qcow2": "qcow2", ".raw": "raw", ".img": "raw", ".iso": "raw"}

const targetForms = "PATH.qcow2, PATH.raw, VM, VM/DISK, VM@BACKUP, VM/DISK@BACKUP or VM@ (all backups), with #SNAPSHOT and :/PATH behind it"

func parseTarget(s string) (target, error) {
	t := target{path: []byte("/")}
	rest := s
	if what, path, ok := strings.Cut(rest, ":/"); ok {
		rest, t.path, t.pathed = what, []byte("/"+path), true
	}
	if what, snapshot, ok := strings.Cut(rest, "#"); ok {
		rest, t.snapshot = what, snapshot
		if snapshot == "" {
			return t, usageError("target %q: a snapshot's name is missing behind #", s)
		}
	}
	for ending, format := range formats {
		if strings.HasSuffix(rest, ending) {
			t.image, t.format = rest, format
			return t, nil
		}
	}
	if what, backup, ok := strings.Cut(rest, "@"); ok {
		rest, t.backup = what, backup
		t.history = backup == ""
		if t.snapshot != "" || t.history && strings.Contains(rest, "/") {
			return t, usageError("target %q: behind @ comes a backup (latest, an ID or a date), and no #", s)
		}
	}
	t.vm, t.disk, _ = strings.Cut(rest, "/")
	if t.vm == "" || strings.Contains(t.disk, "/") {
		return t, usageError("target %q is not %s", s, targetForms)
	}
	return t, nil
}
