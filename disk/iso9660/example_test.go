package iso9660_test

import (
	"fmt"
	"log"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/iso9660"
	"github.com/drydock-vm/drydock/disk/raw"
)

// An image that keeps modes, owners and symlinks by Rock Ridge.
func Example() {
	f := disktest.Unpack("testdata/rockridge.img.gz") // an image that the caller has opened
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		log.Fatal(err)
	}
	image, err := raw.Open(f, info.Size())
	if err != nil {
		log.Fatal(err)
	}
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
