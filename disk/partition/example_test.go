package partition_test

import (
	"fmt"
	"log"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/partition"
)

// The table of a disk, and what one of its partitions starts with.
func Example() {
	image := disktest.Unpack("../layout/testdata/mbr.img.gz") // or a file, by package raw or qcow2
	table, err := partition.Read(image, 0)
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range table.Partitions {
		fmt.Printf("%v %d: %d bytes at %d, type %02x\n", table.Kind, p.Number, p.Length, p.Offset, p.Type)
	}
	p, err := table.Find(1)
	if err != nil {
		log.Fatal(err)
	}
	content, err := partition.Section(image, p.Offset, p.Length)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("partition 1 as a disk of its own:", content.Size(), "bytes")
	// Output:
	// mbr 1: 204800 bytes at 4096, type 83
	// mbr 2: 307200 bytes at 208896, type 05
	// mbr 5: 204800 bytes at 212992, type 83
	// partition 1 as a disk of its own: 204800 bytes
}
