package guest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/internal/testlvm"
)

// vm is the disks of a VM.
type vm struct {
	t      testing.TB
	images []string
}

func (v *vm) must(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

// addDisk adds an empty disk.
func (v *vm) addDisk(size int64) string {
	v.images = append(v.images, disktest.EmptyImage(v.t, size))
	return v.images[len(v.images)-1]
}

// layout reads the disks as vda, vdb…
func (v *vm) layout() *layout.Layout {
	v.t.Helper()
	var disks []layout.Disk
	for i, path := range v.images {
		disks = append(disks, layout.Disk{Name: "vd" + string(rune('a'+i)), Content: disktest.OpenImage(v.t, path)})
	}
	l, err := layout.Read(disks)
	if err != nil {
		v.t.Fatal(err)
	}
	return l
}

// partitionStart returns where a partition starts, in bytes, and its size.
func partitionStart(t testing.TB, image string, number int) (off, size int64) {
	t.Helper()
	out := string(disktest.Run(t, "partx", "-g", "-o", "START,SECTORS", "-n", fmt.Sprint(number), image))
	fields := strings.Fields(out)
	start, err1 := strconv.ParseInt(fields[0], 10, 64)
	count, err2 := strconv.ParseInt(fields[1], 10, 64)
	if err1 != nil || err2 != nil {
		t.Fatalf("partx: %q", out)
	}
	return start * 512, count * 512
}

// volume returns where a linear volume of one segment lies: a device, and the
// range on it.
func volume(t testing.TB, tools *testlvm.LVM, name string) (device string, off, size int64) {
	t.Helper()
	out := tools.Run("lvs", "--noheadings", "--units", "b", "--nosuffix", "-o", "seg_pe_ranges,vg_extent_size,lv_size", name)
	fields := strings.Fields(out)
	if len(fields) != 3 {
		t.Fatalf("lvs %s: %q", name, out)
	}
	device, extents, _ := strings.Cut(fields[0], ":")
	first, _, _ := strings.Cut(extents, "-")
	start := strings.TrimSpace(tools.Run("pvs", "--noheadings", "--units", "b", "--nosuffix", "-o", "pe_start", device))
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return device, number(start) + number(first)*number(fields[1]), number(fields[2])
}

// populate writes a few files, the same for no two seeds.
func populate(t testing.TB, dir string, seed byte) {
	t.Helper()
	random := rand.NewChaCha8([32]byte{seed})
	content := make([]byte, 40_000)
	for i := range 20 {
		sub := filepath.Join(dir, fmt.Sprintf("dir-%d-%d", seed, i%4))
		random.Read(content)
		for _, err := range []error{
			os.MkdirAll(sub, 0o755),
			os.WriteFile(filepath.Join(sub, fmt.Sprint(i)), content[:random.Uint64()%uint64(len(content))], 0o640),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, err := range []error{
		os.Link(filepath.Join(dir, fmt.Sprintf("dir-%d-0/0", seed)), filepath.Join(dir, "hardlink")),
		os.Symlink("hardlink", filepath.Join(dir, "symlink")),
		unix.Setxattr(filepath.Join(dir, "hardlink"), "user.seed", []byte{seed}, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}
