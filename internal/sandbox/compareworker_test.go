package sandbox

import (
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/disk/xfs"
	"github.com/drydock-vm/drydock/internal/benchdisk"
	"github.com/drydock-vm/drydock/internal/garbage"
)

// inProcess are the readers without a worker around them.
var inProcess = map[string]func(disk.Sparse) (disk.Filesystem, error){
	"ext4": func(d disk.Sparse) (disk.Filesystem, error) { return ext4.Open(d, ext4.Options{}) },
	"xfs":  func(d disk.Sparse) (disk.Filesystem, error) { return xfs.Open(d, xfs.Options{}) },
	"btrfs": func(d disk.Sparse) (disk.Filesystem, error) {
		return btrfs.Open([]disk.Sparse{d}, btrfs.Options{})
	},
}

// maxCost is how much longer it may take through the worker: the aim is 1.1, the rest is
// for a machine that does other things.
const maxCost = 1.25

// TestCompareWorker reads everything of a filesystem as tar does, in process and
// through the worker, in two orders: file by file as the disk lists them, and each
// directory sorted by name.
func TestCompareWorker(t *testing.T) {
	benchdisk.Wanted(t)
	garbage.Bound(garbage.Spare) // as the program does
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		for _, order := range []string{"as listed", "sorted"} {
			t.Run(fstype+"/"+order, func(t *testing.T) {
				path := benchdisk.System(t, fstype)
				medians := benchdisk.Compare(t, 9, nil,
					benchdisk.Contender{Name: "through the worker", Run: func() error {
						r := start(t, path, DiskSpec{Format: Raw})
						defer r.Close()
						fs, err := r.Filesystem(t.Context(), filepath.Base(path))
						if err != nil {
							return err
						}
						_, _, err = benchdisk.Read(fs, order == "sorted")
						return err
					}},
					benchdisk.Contender{Name: "in process", Run: func() error {
						f := openFile(t, path)
						size, err := readableSize(f)
						if err != nil {
							return err
						}
						image, err := raw.Open(f, size)
						if err != nil {
							return err
						}
						fs, err := inProcess[fstype](image)
						if err != nil {
							return err
						}
						_, _, err = benchdisk.Read(fs, order == "sorted")
						return err
					}})
				if cost := medians[0].Seconds() / medians[1].Seconds(); cost > maxCost {
					t.Errorf("through the worker it takes %.2f times as long, want %.2f at most", cost, maxCost)
				}
			})
		}
	}
}
