package iso9660_test

import (
	"fmt"
	"log"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/iso9660"
)

// An image that keeps modes, owners and symlinks by Rock Ridge.
func Example() {
	image := disktest.Unpack("testdata/rockridge.img.gz") // or a file, by package raw or qcow2
	fs, err := iso9660.Open(image, iso9660.Options{})
	if err != nil {
		log.Fatal(err)
	}
	entries, err := disk.List(fs, fs.Info().Root)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range entries {
		if e.Type != disk.ModeSymlink {
			continue
		}
		target, err := fs.Readlink(e.Ino)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%.10q… -> %.40q\n", e.Name, target)
	}
	// Output:
	// "nnnnnnnnnn"… -> "/../component/../component/../component/"
}
