package layout_test

import (
	"fmt"
	"log"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/disk/raw"
)

// What is on a disk, layer by layer.
func Example() {
	f := disktest.Unpack("testdata/lvm.img.gz") // an image that the caller has opened
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		log.Fatal(err)
	}
	image, err := raw.Open(f, info.Size())
	if err != nil {
		log.Fatal(err)
	}
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
	f := disktest.Unpack("testdata/gpt.img.gz") // an image that the caller has opened
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		log.Fatal(err)
	}
	image, err := raw.Open(f, info.Size())
	if err != nil {
		log.Fatal(err)
	}
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
