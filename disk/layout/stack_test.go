package layout_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/internal/testlvm"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// readAll reads the layout of images as vda, vdb and so on.
func readAll(t testing.TB, images ...string) *layout.Layout {
	t.Helper()
	var disks []layout.Disk
	for i, path := range images {
		disks = append(disks, layout.Disk{Name: "vd" + string(rune('a'+i)), Content: disktest.OpenImage(t, path)})
	}
	l, err := layout.Read(disks)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func find(t testing.TB, l *layout.Layout, name string) (int, layout.Volume) {
	t.Helper()
	i, err := l.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return i, l.Volumes()[i]
}

func names(l *layout.Layout) []string {
	var list []string
	for _, v := range l.Volumes() {
		list = append(list, v.Name)
	}
	return list
}

// sfdisk is what sfdisk says of an image.
type sfdisk struct {
	Table struct {
		Label      string
		ID         string
		Partitions []struct {
			Start, Size      int64
			Type, UUID, Name string
		} `json:"partitions"`
	} `json:"partitiontable"`
}

func readSfdisk(t testing.TB, image string) sfdisk {
	t.Helper()
	var s sfdisk
	if err := json.Unmarshal(disktest.Run(t, "sfdisk", "--json", image), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStack puts a GPT, an MBR with logical partitions, a volume group over
// partitions and disks, and a btrfs over a partition and a logical volume on four
// disks.
func TestStack(t *testing.T) {
	gpt, mbr, whole, plain := disktest.EmptyImage(t, 300<<20), disktest.EmptyImage(t, 120<<20), disktest.EmptyImage(t, 200<<20), disktest.EmptyImage(t, 16<<20)
	disktest.Run(t, "sgdisk", "-n", "1:0:+1M", "-t", "1:ef02", "-n", "3:0:+20M", "-c", "3:bö ot", "-n", "4:0:0", "-t", "4:8e00", gpt)
	cmd := exec.Command("sfdisk", "-q", mbr)
	cmd.Stdin = strings.NewReader("label: dos\nlabel-id: 0x1234abcd\n,10M,b\n,60M,5\n,,83\n,20M,82\n,30M,83\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	g, m := readSfdisk(t, gpt).Table.Partitions, readSfdisk(t, mbr).Table.Partitions
	part := func(image string, p struct {
		Start, Size      int64
		Type, UUID, Name string
	}) string {
		return testmount.Loop(t, image, p.Start*512, p.Size*512)
	}
	boot, pv1, pv2 := part(gpt, g[1]), part(gpt, g[2]), testmount.Loop(t, whole, 0, 0)
	efi, swap, half := part(mbr, m[0]), part(mbr, m[3]), part(mbr, m[4])
	disktest.Run(t, "mkfs.ext4", "-q", boot)
	disktest.Run(t, "mkfs.fat", "-F", "16", efi)
	disktest.Run(t, "mkswap", "-q", swap)
	tools := testlvm.New(t, pv1, pv2)
	tools.Run("vgcreate", "vg", pv1, pv2)
	tools.Create("-n", "striped", "-i", "2", "-I", "64k", "-L", "64M", "vg")
	tools.Create("-n", "root", "-l", "100%FREE", "vg")
	disktest.Run(t, "mkfs.ext2", "-q", half)
	disktest.Run(t, "sync", half)

	l := readAll(t, gpt, mbr, whole, plain)
	want := []string{"vda", "vda-part1", "vda-part3", "vda-part4", "vdb", "vdb-part1", "vdb-part2", "vdb-part3", "vdb-part5", "vdb-part6", "vdc", "vdd", "vg/striped", "vg/root"}
	if got := names(l); !slices.Equal(got, want) {
		t.Fatalf("volumes are %q, want %q", got, want)
	}
	for name, content := range map[string]string{
		"vda": "", "vda-part1": "", "vda-part3": "ext4", "vda-part4": "LVM2_member", "vdb-part1": "vfat", "vdb-part2": "", "vdb-part3": "",
		"vdb-part5": "swap", "vdb-part6": "ext2", "vdc": "LVM2_member", "vdd": "", "vg/root": "", "vg/striped": "",
	} {
		i, v := find(t, l, name)
		if v.Content != content || v.Err != nil || v.Title == "" && v.Table == "" || v.Size <= 0 {
			t.Errorf("%+v", v)
		}
		checkBytes(t, l, i, v, gpt, mbr, whole, plain)
	}
	checkPartitions(t, l, "vda", g)
	checkPartitions(t, l, "vdb", m)
	i, root := find(t, l, "vg/root")
	part4, _ := l.Find("vda-part4")
	vdc, _ := l.Find("vdc")
	if root.Kind != layout.LogicalVolume || root.Parent != -1 || !slices.Equal(root.Members, []int{part4, vdc}) {
		t.Errorf("volume %d: %+v", i, root)
	}
	if _, v := find(t, l, "vda"); v.Table != "gpt" || v.Kind != layout.WholeDisk {
		t.Errorf("%+v", v)
	}
}

// checkPartitions compares the partitions of a disk with sfdisk.
func checkPartitions(t *testing.T, l *layout.Layout, name string, want []struct {
	Start, Size      int64
	Type, UUID, Name string
}) {
	t.Helper()
	parent, whole := find(t, l, name)
	n := 0
	for _, v := range l.Volumes() {
		if v.Parent != parent {
			continue
		}
		w := want[n]
		n++
		kind, uuid := strings.ToLower(w.Type), strings.ToLower(w.UUID)
		if whole.Table == "mbr" {
			kind, uuid = fmt.Sprintf("%02s", w.Type), fmt.Sprintf("1234abcd-%02x", v.Number)
		}
		if v.Offset != w.Start*512 || v.Size != w.Size*512 || v.PartType != kind || v.PartUUID != uuid || string(v.PartLabel) != w.Name {
			t.Errorf("%+v, sfdisk has %+v", v, w)
		}
	}
	if n != len(want) {
		t.Errorf("%s has %d partitions, sfdisk %d", name, n, len(want))
	}
}

// checkBytes reads pieces of a volume, and compares them with what lies where
// Locate says.
func checkBytes(t *testing.T, l *layout.Layout, i int, v layout.Volume, images ...string) {
	t.Helper()
	d, err := l.Bytes(i)
	if v.Name == "vdb-part2" {
		if !errors.Is(err, disk.ErrNotExist) {
			t.Errorf("bytes of an extended partition: %v", err)
		}
		return
	}
	if err != nil || d.Size() != v.Size {
		t.Fatalf("%s has %d bytes, not %d: %v", v.Name, d.Size(), v.Size, err)
	}
	for _, off := range []int64{0, v.Size / 2, max(0, v.Size-1<<20)} {
		length := min(v.Size-off, 1<<20)
		want := make([]byte, length)
		if n, err := d.ReadAt(want, off); int64(n) != length {
			t.Fatalf("%s: %d bytes at %d: %v", v.Name, n, off, err)
		}
		got := make([]byte, length)
		next := off
		err := d.(disk.Locator).Locate(off, length, func(at disk.Location) error {
			if at.Offset != next || at.Device < 0 {
				return fmt.Errorf("%+v where %d is due", at, next)
			}
			next += at.Length
			f, _ := disktest.OpenFile(t, images[at.Device])
			_, err := f.ReadAt(got[at.Offset-off:next-off], at.At)
			return err
		})
		if err != nil || next != off+length || string(got) != string(want) {
			t.Errorf("%s: located up to %d: %v, or other content", v.Name, next, err)
		}
	}
	if err := d.(disk.Locator).Locate(0, v.Size+1, func(disk.Location) error { return nil }); err == nil {
		t.Errorf("%s: locations beyond the end", v.Name)
	}
}

// TestFilesystemInVolume reads a filesystem that the kernel wrote through a
// striped volume's place for it.
func TestFilesystemInVolume(t *testing.T) {
	a, b := disktest.EmptyImage(t, 64<<20), disktest.EmptyImage(t, 64<<20)
	pv1, pv2 := testmount.Loop(t, a, 0, 0), testmount.Loop(t, b, 0, 0)
	tools := testlvm.New(t, pv1, pv2)
	tools.Run("vgcreate", "vg", pv1, pv2)
	tools.Create("-n", "striped", "-i", "2", "-I", "64k", "-L", "64M", "vg")
	inside := disktest.MakeImage(t, 64<<20, "mkfs.ext4", "-q", "-L", "inside")
	dir, unmount := disktest.Mount(t, inside, "ext4", "rw")
	for i := range 100 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte(strings.Repeat(fmt.Sprint(i), 5000)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	unmount()
	dir, unmount = disktest.Mount(t, inside, "ext4", "ro")
	want := disktest.KernelTree(t, dir)
	unmount()

	content, size := disktest.OpenFile(t, inside)
	legs := []*os.File{openWrite(t, a), openWrite(t, b)}
	chunk := make([]byte, 64<<10)
	for i := int64(0); i < size/int64(len(chunk)); i++ { // both start at extent 0, 1 MiB into the disk
		if _, err := content.ReadAt(chunk, i*int64(len(chunk))); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if _, err := legs[i%2].WriteAt(chunk, 1<<20+i/2*int64(len(chunk))); err != nil {
			t.Fatal(err)
		}
	}
	l := readAll(t, a, b)
	i, v := find(t, l, "vg/striped")
	if string(v.Label) != "inside" || !v.Readable {
		t.Fatalf("%+v", v)
	}
	fs, err := l.Open(i)
	if err != nil {
		t.Fatal(err)
	}
	disktest.CompareTrees(t, want, disktest.ReadTree(t, fs))

	raw, err := os.ReadFile(inside)
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Bytes(i)
	if err != nil {
		t.Fatal(err)
	}
	disktest.Check(t, d, raw)
}

// TestLargeSectors reads a disk of 4096-byte sectors.
func TestLargeSectors(t *testing.T) {
	path := disktest.EmptyImage(t, 64<<20)
	device := testmount.Loop(t, path, 0, 0, "--sector-size", "4096")
	disktest.Run(t, "sgdisk", "-n", "1:0:+16M", "-n", "2:0:0", device)
	testmount.Detach(t, device)
	const first = 1 << 20
	disktest.Run(t, "mkfs.ext4", "-q", "-b", "4096", testmount.Loop(t, path, first, 16<<20))
	pv := testmount.Loop(t, path, first+16<<20, 40<<20, "--sector-size", "4096")
	tools := testlvm.New(t, pv)
	tools.Run("vgcreate", "vg", pv)
	tools.Create("-n", "root", "-L", "16M", "vg")
	testmount.Detach(t, pv)
	l, err := layout.Read([]layout.Disk{{Name: "vda", Content: disktest.OpenImage(t, path), SectorSize: 4096}})
	if err != nil {
		t.Fatal(err)
	}
	if got := names(l); !slices.Equal(got, []string{"vda", "vda-part1", "vda-part2", "vg/root"}) {
		t.Errorf("volumes are %q", got)
	}
	if _, v := find(t, l, "vda-part1"); v.Content != "ext4" || !v.Readable || v.Offset != first {
		t.Errorf("%+v", v)
	}
}

func openWrite(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestBtrfsDevices finds the devices of one filesystem on disks and partitions,
// and misses one.
func TestBtrfsDevices(t *testing.T) {
	a, b, other := disktest.EmptyImage(t, 256<<20), disktest.EmptyImage(t, 256<<20), disktest.MakeImage(t, 128<<20, "mkfs.btrfs", "-q")
	disktest.Run(t, "sgdisk", "-n", "1:0:0", b)
	p := readSfdisk(t, b).Table.Partitions[0]
	one, two := testmount.Loop(t, a, 0, 0), testmount.Loop(t, b, p.Start*512, p.Size*512)
	disktest.Run(t, "mkfs.btrfs", "-q", "-L", "pool", "-d", "raid0", "-m", "raid1", one, two)
	disktest.Run(t, "sync", one, two)

	l := readAll(t, other, b, a)
	_, alone := find(t, l, "vda")
	first, v := find(t, l, "vdb-part1")
	second, w := find(t, l, "vdc")
	if alone.Members != nil || !alone.Readable || !v.Readable || w.Readable || !slices.Equal(v.Members, []int{first, second}) || !slices.Equal(w.Members, v.Members) || v.UUID != w.UUID {
		t.Errorf("%+v\n%+v\n%+v", alone, v, w)
	}
	if devices := l.Devices(first); len(devices) != 2 || devices[1].Size() != 256<<20 || l.Devices(second) != nil {
		t.Errorf("devices: %d", len(devices))
	}
	if _, err := l.Open(second); !errors.Is(err, disk.ErrNotExist) || !strings.Contains(err.Error(), "vdb-part1") {
		t.Errorf("the second device opens: %v", err)
	}
	fs, err := l.Open(first)
	if err != nil || string(fs.Info().Label) != "pool" {
		t.Fatalf("%v, %v", fs, err)
	}
	for _, images := range [][]string{{a}, {b}} {
		l := readAll(t, images...)
		last := len(l.Volumes()) - 1
		fs, err := l.Open(last)
		if err == nil { // what is mirrored can be read
			_, err = fs.Inode(fs.Info().Root)
		}
		if v := l.Volumes()[last]; err != nil && v.Err == nil {
			t.Errorf("half of a pool: %v, and %+v", err, v)
		}
	}
	if l := readAll(t, a, a, b); l.Volumes()[0].Err == nil || l.Volumes()[0].Readable {
		t.Errorf("a disk twice: %+v", l.Volumes()[0])
	}
}
