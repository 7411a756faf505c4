package disk_test

import (
	"fmt"
	"log"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
)

// The whole way: from a disk, through its partitions, to what is in a filesystem.
func Example() {
	image := disktest.Unpack("layout/testdata/gpt.img.gz") // or a file, by package raw or qcow2
	l, err := layout.Read([]layout.Disk{{Name: "web", Content: image}})
	if err != nil {
		log.Fatal(err)
	}
	for i, v := range l.Volumes() {
		if !v.Readable {
			continue
		}
		fs, err := l.Open(i)
		if err != nil {
			log.Fatal(err)
		}
		entries, err := disk.List(fs, fs.Info().Root)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s holds %s with %d entries\n", v.Name, fs.Info().Type, len(entries))
	}
	// Output:
	// web-part1 holds ext4 with 1 entries
	// web-part3 holds vfat with 0 entries
}
