package qcow2_test

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/qcow2"
)

// An internal snapshot, beside what was written since.
func ExampleOpen_snapshot() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "disk.qcow2")
	for _, command := range [][]string{
		{"qemu-img", "create", "-q", "-f", "qcow2", path, "1M"},
		{"qemu-io", "-c", "write -q -P 1 0 64k", path},
		{"qemu-img", "snapshot", "-c", "before", path},
		{"qemu-io", "-c", "write -q -P 2 0 128k", path},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			log.Fatalf("%s: %v", out, err)
		}
	}

	f, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		log.Fatal(err)
	}
	for _, snapshot := range []string{"", "before"} {
		image, err := qcow2.Open(f, info.Size(), qcow2.Options{Snapshot: snapshot})
		if err != nil {
			log.Fatal(err)
		}
		first := make([]byte, 1)
		if _, err := image.ReadAt(first, 0); err != nil {
			log.Fatal(err)
		}
		data := int64(0)
		err = image.Extents(0, image.Size(), func(e disk.Extent) error {
			if e.Kind == disk.ExtentData {
				data += e.Length
			}
			return nil
		})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%q: %d bytes of data, the first is %d\n", snapshot, data, first[0])
	}
	// Output:
	// "": 131072 bytes of data, the first is 2
	// "before": 65536 bytes of data, the first is 1
}
