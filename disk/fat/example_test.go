package fat_test

import (
	"fmt"
	"log"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/fat"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/raw"
)

// What is in the folders of a FAT.
func Example() {
	f := disktest.Unpack("testdata/fat32.img.gz") // an image that the caller has opened
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		log.Fatal(err)
	}
	image, err := raw.Open(f, info.Size())
	if err != nil {
		log.Fatal(err)
	}
	fs, err := fat.Open(image, fat.Options{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%q, clusters of %d bytes\n", fs.Info().Label, fs.Info().BlockSize)
	entries, err := disk.List(fs, fs.Info().Root)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range entries {
		fmt.Printf("%q\n", e.Name)
	}
	// Output:
	// "SEED", clusters of 512 bytes
	// "A long name, of which there are several parts.text"
	// "README.TXT"
	// "dir"
	// "empty"
	// "locked"
	// "lower.txt"
	// "pieces"
}
