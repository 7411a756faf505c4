package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/benchdisk"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// TestCompareRestoreImage says how long it takes to restore 37,000 files to a new image,
// whose filesystem mke2fs or a machine writes, under QEMU's own emulation. The image is
// compared with the backup as part of that.
func TestCompareRestoreImage(t *testing.T) {
	benchdisk.Wanted(t)
	dir, _ := testmount.Image(t, benchdisk.System(t, "ext4"), "ro")
	h := newImageHost(t, dir)
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "new.raw")
			begun := time.Now()
			h := *h
			h.t = t
			r := h.run(0, "restore", "web@latest", "--to-image", path, "--fs", fstype, "--size", "3G")
			t.Logf("%s: %.1f s", fstype, time.Since(begun).Seconds())
			mounted, _ := testmount.Image(t, path, "ro")
			files := 0
			must(t, filepath.WalkDir(mounted, func(_ string, d os.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					files++
				}
				return err
			}))
			if files < benchdisk.SystemFiles || !strings.Contains(r.stdout, fmt.Sprintf("%s of 3.0 GiB", fstype)) {
				t.Errorf("%d files came back: %s", files, r.stdout)
			}
		})
	}
}
