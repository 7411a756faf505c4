package ext4

import "github.com/drydock-vm/drydock/disk/internal/ondisk"

// layer makes this package's errors.
var layer = ondisk.Layer{Name: "ext4", Repair: "shut the guest down, let it run e2fsck, and try again"}
