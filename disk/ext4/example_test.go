package ext4_test

import (
	"fmt"
	"log"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// The guest was not shut down: what it has synced is in the journal, which is replayed
// in memory.
func Example() {
	image := disktest.Unpack("testdata/journal-plain.img.gz") // or a file, by package raw or qcow2
	fs, err := ext4.Open(image, ext4.Options{})
	if err != nil {
		log.Fatal(err)
	}
	for _, remark := range fs.Info().Remarks {
		fmt.Println(remark)
	}
	folder, err := disk.Lookup(fs, []byte("/a"))
	if err != nil {
		log.Fatal(err)
	}
	entries, err := disk.List(fs, folder.Ino)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range entries {
		n, err := fs.Inode(e.Ino)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%06o %5d %q\n", n.Mode, n.Size, e.Name) // names are hostile bytes
	}
	// Output:
	// the journal was replayed in memory: 3 transactions, 0 fast commits
	// 040755  1024 "b"
	// 120777     4 "fast"
	// 100644     0 "medium"
	// 100644     0 "small"
}
