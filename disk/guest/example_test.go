package guest_test

import (
	"fmt"
	"log"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/guest"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
)

// The tree that a guest sees, of all its filesystems.
func Example() {
	image := disktest.Unpack("testdata/stack.img.gz") // or a file, by package raw or qcow2
	l, err := layout.Read([]layout.Disk{{Name: "vda", Content: image}})
	if err != nil {
		log.Fatal(err)
	}
	g, err := guest.Open(l, guest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	entries, err := disk.List(g, g.Info().Root)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range entries {
		mount, _ := guest.Split(e.Ino)
		fmt.Printf("%q, of filesystem %d\n", e.Name, mount)
	}
	// Output:
	// "boot", of filesystem 1
	// "etc", of filesystem 0
	// "lost+found", of filesystem 0
	// "srv", of filesystem 2
}
