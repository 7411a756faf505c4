package disk_test

import (
	"fmt"
	"log"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/disk/raw"
)

// The whole way: from a file, through its partitions, to what is in a filesystem.
func Example() {
	f := disktest.Unpack("layout/testdata/gpt.img.gz") // an image that the caller has opened
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		log.Fatal(err)
	}
	image, err := raw.Open(f, info.Size())
	if err != nil {
		log.Fatal(err)
	}
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
