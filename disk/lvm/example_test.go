package lvm_test

import (
	"fmt"
	"log"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/lvm"
)

// The volumes of a group, which lies on a partition.
func Example() {
	image := disktest.Unpack("../layout/testdata/lvm.img.gz") // or a file, by package raw or qcow2
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
