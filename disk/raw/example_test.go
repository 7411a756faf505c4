package raw_test

import (
	"fmt"
	"log"
	"os"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/raw"
)

// A file of 1 MiB and a byte, with something in the middle of nothing.
func Example() {
	f, err := os.CreateTemp("", "disk")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	const size = 1<<20 + 1
	if err := f.Truncate(size); err != nil {
		log.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("guest"), 512<<10); err != nil {
		log.Fatal(err)
	}

	image, err := raw.Open(f, size)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the guest sees", image.Size(), "bytes")
	holes := 0
	err = image.Extents(0, image.Size(), func(e disk.Extent) error {
		if e.Kind == disk.ExtentHole {
			holes++
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("it has holes:", holes > 0)
	// Output:
	// the guest sees 1049088 bytes
	// it has holes: true
}
