package btrfs

import "github.com/drydock-vm/drydock/disk/internal/ondisk"

// layer makes this package's errors.
var layer = ondisk.Layer{Name: "btrfs", Repair: "shut the guest down, look at the disk with btrfs check, or back it up as an image"}
