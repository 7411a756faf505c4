package xfs

import (
	"fmt"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// layer makes this package's errors.
var layer = ondisk.Layer{Name: "xfs", Repair: "shut the guest down, run xfs_repair on the volume, and try again"}

// place names a structure in errors. It is made into text only there.
type place struct {
	what   string
	number uint64
}

func (p place) String() string { return fmt.Sprintf("%s %d", p.what, p.number) }

func inodeName(ino uint64) string { return place{"inode", ino}.String() }
