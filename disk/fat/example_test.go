package fat_test

import (
	"fmt"
	"log"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/fat"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// What is in the folders of a FAT.
func Example() {
	image := disktest.Unpack("testdata/fat32.img.gz") // or a file, by package raw or qcow2
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
