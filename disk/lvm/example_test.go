package lvm_test

import (
	"fmt"
	"log"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/lvm"
	"github.com/drydock-vm/drydock/disk/raw"
)

// The volumes of a group, which lies on a partition.
func Example() {
	f := disktest.Unpack("../layout/testdata/lvm.img.gz") // an image that the caller has opened
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		log.Fatal(err)
	}
	image, err := raw.Open(f, info.Size())
	if err != nil {
		log.Fatal(err)
	}
	pv, err := lvm.Identify(image)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("group %s has %d physical volumes\n", pv.GroupName, len(pv.Members))
	group, err := lvm.OpenGroup([]disk.Sparse{image})
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range group.Volumes {
		content, err := group.Volume(v.Name)
		if err != nil {
			fmt.Println(v.Name, err)
			continue
		}
		fmt.Printf("%s: %s, %d bytes\n", v.Name, v.Type, content.Size())
	}
	// Output:
	// group vg has 1 physical volumes
	// root: linear, 262144 bytes
	// empty: linear, 16384 bytes
}
