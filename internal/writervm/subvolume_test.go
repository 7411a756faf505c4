package writervm_test

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/testmount"
	"github.com/drydock-vm/drydock/internal/writervm"
)

// TestNumbersOfSubvolumes: subvolumes get the numbers that they had, in whatever order
// they come, but for one that is far from all others. Nothing is left of those that were
// made for that.
func TestNumbersOfSubvolumes(t *testing.T) {
	fsys := treetest.NewFake()
	subvolume := func(dir uint64, name string, ino uint64, number uint32, more disk.InodeFlags) {
		fsys.Dir(dir, name, ino)
		n := fsys.Inodes[ino]
		n.Flags, n.Subvolume = disk.FlagSubvolume|more, number
		fsys.Inodes[ino] = n
	}
	subvolume(treetest.Root, "a", 10, 300, 0)
	subvolume(10, "in", 11, 257, disk.FlagReadOnly)
	subvolume(treetest.Root, "b", 12, 301, 0)
	subvolume(treetest.Root, "far", 13, 5000, disk.FlagDefault)
	fsys.File(11, "file", 14, treetest.Content{Data: []byte("content")})
	path := makeImage(t, "btrfs", smallSize)
	o := options(t)
	o.Subvolumes = []uint32{300, 257, 5000, 301, 302} // the last does not come
	if err := writervm.Write(t.Context(), path, "btrfs", fsys, o); err != nil {
		t.Fatal(err)
	}
	tool(t, "btrfs", "check", path)
	dir, _ := testmount.Image(t, path, "ro,subvolid=5")
	out, err := exec.Command("btrfs", "subvolume", "list", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^ID (\d+) .* path (.*)$`).FindAllStringSubmatch(string(out), -1) {
		if m[2] == "far" {
			m[1] = "any"
		}
		got = append(got, m[1]+" "+m[2])
	}
	if want := []string{"257 a/in", "300 a", "301 b", "any far"}; !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 3 {
		t.Errorf("there are %v, %v", names, err)
	}
	if text, err := os.ReadFile(dir + "/a/in/file"); err != nil || string(text) != "content" {
		t.Errorf("%q, %v", text, err)
	}
}
