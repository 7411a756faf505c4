package layout_test

import (
	"fmt"
	"log"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
)

// What is on a disk, layer by layer.
func Example() {
	image := disktest.Unpack("testdata/lvm.img.gz") // or a file, by package raw or qcow2
	l, err := layout.Read([]layout.Disk{{Name: "vda", Content: image}})
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range l.Volumes() {
		fmt.Printf("%s: %d bytes, %s, readable: %v\n", v.Name, v.Size, v.Title, v.Readable)
	}
	// Output:
	// vda: 1048576 bytes, a physical volume of LVM group vg, readable: false
	// vg/root: 262144 bytes, an ext4 filesystem, readable: true
	// vg/empty: 16384 bytes, nothing: it is empty, readable: false
}

// What a copy of a disk need not have.
func ExampleLayout_Unused() {
	image := disktest.Unpack("testdata/gpt.img.gz") // or a file, by package raw or qcow2
	l, err := layout.Read([]layout.Disk{{Name: "vda", Content: image}})
	if err != nil {
		log.Fatal(err)
	}
	unused := int64(0)
	for _, r := range l.Unused()[0].Ranges {
		unused += r.Length
	}
	fmt.Printf("%d of %d bytes mean nothing to the guest\n", unused, image.Size())
	// Output:
	// 346624 of 1048576 bytes mean nothing to the guest
}
