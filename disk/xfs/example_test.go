package xfs_test

import (
	"fmt"
	"log"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/xfs"
)

// The extents of a file are known without reading it: where it has holes, and what was
// allocated for it and never written.
func Example() {
	image := disktest.Unpack("testdata/v5-dirty.img.gz") // or a file, by package raw or qcow2
	fs, err := xfs.Open(image, xfs.Options{})
	if err != nil {
		log.Fatal(err)
	}
	for _, remark := range fs.Info().Remarks {
		fmt.Println(remark)
	}
	n, err := disk.Lookup(fs, []byte("/holes"))
	if err != nil {
		log.Fatal(err)
	}
	content, err := fs.Open(n.Ino)
	if err != nil {
		log.Fatal(err)
	}
	bytes := make(map[disk.ExtentKind]int64)
	err = content.Extents(0, content.Size(), func(e disk.Extent) error {
		bytes[e.Kind] += e.Length
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("data:", bytes[disk.ExtentData])
	fmt.Println("allocated, never written:", bytes[disk.ExtentZero])
	fmt.Println("holes:", bytes[disk.ExtentHole])
	// Output:
	// the log was replayed in memory: 7 transactions
	// data: 40960
	// allocated, never written: 230400
	// holes: 248832
}
