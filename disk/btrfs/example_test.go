package btrfs_test

import (
	"fmt"
	"log"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// One Filesystem shows all subvolumes, each where its parent keeps it.
func Example() {
	image := disktest.Unpack("testdata/mixed.img.gz") // or a file, by package raw or qcow2
	fs, err := btrfs.Open([]disk.Sparse{image}, btrfs.Options{})
	if err != nil {
		log.Fatal(err)
	}
	subvolumes, err := fs.Subvolumes()
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range subvolumes {
		entries, err := disk.List(fs, s.Root)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d %q, %d entries, read-only: %v\n", s.ID, s.Path, len(entries), s.ReadOnly)
	}
	// Output:
	// 5 "", 16 entries, read-only: false
	// 256 "sub", 2 entries, read-only: false
	// 257 "sub/below", 0 entries, read-only: false
	// 258 "snapshot", 2 entries, read-only: true
}
