package iso9660

import (
	"fmt"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// layer makes this package's errors.
var layer = ondisk.Layer{Name: "iso9660", Repair: "make the image anew, or copy it again from where it came"}

func inodeName(ino uint64) string { return fmt.Sprintf("inode %d", ino) }

func directoryName(ino uint64) string { return fmt.Sprintf("directory %d", ino) }
