package fat

import "github.com/drydock-vm/drydock/disk/internal/ondisk"

// layer makes this package's errors.
var layer = ondisk.Layer{Name: "fat", Repair: "let the guest unmount it and run fsck.fat on it, and try again"}
