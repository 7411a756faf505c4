package layout_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/internal/testlvm"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// TestCrafted has blkid judge superblocks of what cannot be made on this machine.
func TestCrafted(t *testing.T) {
	const size = 16<<20 + 3*512
	uuid := func(p []byte) { copy(p, "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef") }
	md1 := func(d []byte, at int) {
		p := d[at:]
		binary.LittleEndian.PutUint32(p, 0xa92b4efc)
		binary.LittleEndian.PutUint32(p[4:], 1)
		uuid(p[16:])
		copy(p[32:], "host:array")
		binary.LittleEndian.PutUint64(p[144:], uint64(at/512))
		binary.LittleEndian.PutUint32(p[220:], 0) // devices in the table
		sum := uint64(0)
		for i := 0; i < 256; i += 4 {
			sum += uint64(binary.LittleEndian.Uint32(p[i:]))
		}
		binary.LittleEndian.PutUint32(p[216:], uint32(sum)+uint32(sum>>32))
	}
	md0 := func(d []byte, order binary.ByteOrder) {
		p := d[size&^(64<<10-1)-64<<10:]
		for at, v := range map[int]uint32{0: 0xa92b4efc, 8: 90, 20: 0x01234567, 32: 64, 52: 0x89abcdef, 56: 2, 60: 3} {
			order.PutUint32(p[at:], v)
		}
	}
	for name, craft := range map[string]func(d []byte){
		"md 1.0":          func(d []byte) { md1(d, (size/512-16)&^7*512) },
		"md 1.1":          func(d []byte) { md1(d, 0) },
		"md 1.2":          func(d []byte) { md1(d, 4096) },
		"md 0.90":         func(d []byte) { md0(d, binary.LittleEndian) },
		"md 0.90 big":     func(d []byte) { md0(d, binary.BigEndian) },
		"md elsewhere":    func(d []byte) { md1(d, 4096); d[4096+144]++ },
		"half a pool":     func(d []byte) { zfs(d, 3) },
		"pool":            func(d []byte) { zfs(d, 8) },
		"small pool":      func(d []byte) { zfs(d, 8) },
		"suspended":       func(d []byte) { swap(d); copy(d[4086:], "S1SUSPEND\x00") },
		"uswsusp":         func(d []byte) { swap(d); copy(d[4086:], "ULSUSPEND\x00") },
		"swap version 2":  func(d []byte) { swap(d); d[1024] = 2 },
		"swap of nothing": func(d []byte) { swap(d); clear(d[1028:1032]) },
		"old swap":        func(d []byte) { copy(d[4086:], "SWAP-SPACE") },
		"LUKS version 3":  func(d []byte) { copy(d, "LUKS\xba\xbe\x00\x03") },
		"noise":           func(d []byte) { d[7777] = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			d := make([]byte, size, 64<<20)
			craft(d)
			if name == "pool" || name == "half a pool" {
				d = d[:cap(d)]
			}
			path := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(path, d, 0o644); err != nil {
				t.Fatal(err)
			}
			v := readImage(t, path).Volumes()[0]
			want, _ := blkid(t, path)
			if v.Content != want["TYPE"] || (v.UUID != want["UUID"] || string(v.Label) != want["LABEL"]) {
				t.Errorf("%+v, blkid has %q", v, want)
			}
			if harmless := v.Content == "" || v.Content == "swap" || v.Content == "swsuspend"; harmless != (v.Err == nil) {
				t.Errorf("%s: %v", v.Content, v.Err)
			}
			if remarkable := v.Content == "" || v.Content == "swsuspend"; remarkable != (len(v.Remarks) == 1) {
				t.Errorf("remarks are %q", v.Remarks)
			}
		})
	}
}

func zfs(d []byte, uberblocks int) {
	for i := range uberblocks {
		binary.LittleEndian.PutUint64(d[128<<10+i<<10:], 0x00bab10c)
		binary.LittleEndian.PutUint64(d[128<<10+i<<10+8:], 5000)
	}
}

func swap(d []byte) {
	binary.LittleEndian.PutUint32(d[1024:], 1)
	binary.LittleEndian.PutUint32(d[1028:], 100)
	copy(d[1036:], "0123456789abcdefname")
	copy(d[4086:], "SWAPSPACE2")
}

// TestBcachefs is about what blkid of Debian 12 does not know yet.
func TestBcachefs(t *testing.T) {
	d := make(disktest.Mem, 1<<20)
	copy(d[4096+24:], "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef")
	copy(d[4096+56:], "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef")
	copy(d[4096+72:], "label")
	l, err := layout.Read([]layout.Disk{{Name: "vda", Content: d}})
	if err != nil {
		t.Fatal(err)
	}
	v := l.Volumes()[0]
	if v.Content != "bcachefs" || v.UUID != "01234567-89ab-cdef-0123-456789abcdef" || string(v.Label) != "label" || !errors.Is(v.Err, disk.ErrUnsupported) {
		t.Errorf("%+v", v)
	}
}

// TestNames checks which disks are refused altogether.
func TestNames(t *testing.T) {
	empty := disktest.Mem(make([]byte, 4096))
	for name, disks := range map[string][]layout.Disk{
		"none":    nil,
		"no name": {{Content: empty}},
		"slash":   {{Name: "a/b", Content: empty}},
		"long":    {{Name: strings.Repeat("x", 256), Content: empty}},
		"twice":   {{Name: "a", Content: empty}, {Name: "a", Content: empty}},
		"many":    make([]layout.Disk, 257),
	} {
		if _, err := layout.Read(disks); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	l, err := layout.Read([]layout.Disk{{Name: "a", Content: empty}})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{-1, 1} {
		if _, err := l.Bytes(i); !errors.Is(err, disk.ErrNotExist) {
			t.Errorf("bytes of volume %d: %v", i, err)
		}
		if _, err := l.Open(i); !errors.Is(err, disk.ErrNotExist) || l.Devices(i) != nil {
			t.Errorf("volume %d opens: %v", i, err)
		}
	}
	if _, err := l.Open(0); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("an empty disk opens: %v", err)
	}
	if _, err := l.Find("b"); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("found: %v", err)
	}
}

// broken is a disk of which a part cannot be read.
type broken struct {
	disk.Sparse
	from int64
}

var errBroken = errors.New("broken")

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.from {
		return 0, errBroken
	}
	return b.Sparse.ReadAt(p, off)
}

// TestOneBrokenDisk: what is wrong with one volume hides no other.
func TestOneBrokenDisk(t *testing.T) {
	good := disktest.OpenImage(t, disktest.MakeImage(t, 8<<20, "mkfs.ext4", "-q"))
	table := disktest.MakeImage(t, 8<<20, "sgdisk", "-n", "1:0:+1M", "-n", "2:0:+1M")
	raw, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(raw)
	damaged[512+8] ^= 1
	backup := bytes.Clone(damaged)
	damaged[len(damaged)-512+8] ^= 1
	superblock := make(disktest.Mem, 8<<20)
	if _, err := good.ReadAt(superblock, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	superblock[1024] ^= 1
	l, err := layout.Read([]layout.Disk{
		{Name: "broken", Content: broken{good, 0}},
		{Name: "half", Content: broken{disktest.Mem(raw), 1<<20 + 2000}},
		{Name: "damaged", Content: disktest.Mem(damaged)},
		{Name: "backup", Content: disktest.Mem(backup)},
		{Name: "sectors", Content: disktest.Mem(raw), SectorSize: 4096},
		{Name: "strange", Content: disktest.Mem(raw), SectorSize: 1000},
		{Name: "superblock", Content: superblock},
		{Name: "tiny", Content: disktest.Mem{1}},
		{Name: "good", Content: good},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"broken": errBroken, "half": nil, "half-part1": errBroken, "half-part2": errBroken, "damaged": disk.ErrCorrupt,
		"backup": nil, "backup-part1": nil, "backup-part2": nil, "strange": disk.ErrUnsupported,
		"superblock": disk.ErrCorrupt, "tiny": nil, "good": nil,
	} {
		i, v := find(t, l, name)
		if !errors.Is(v.Err, want) || want == nil && v.Err != nil {
			t.Errorf("%s: %v, want %v", name, v.Err, want)
		}
		if _, err := l.Open(i); (err == nil) != (name == "good") {
			t.Errorf("%s opens: %v", name, err)
		}
	}
	if _, v := find(t, l, "superblock"); v.Content != "ext4" || v.UUID == "" {
		t.Errorf("what is damaged has no UUID: %+v", v)
	}
	for name, words := range map[string]string{"backup": "backup of the partition table", "sectors": "sectors of 512 bytes"} {
		if _, v := find(t, l, name); !strings.Contains(strings.Join(v.Remarks, "\n"), words) {
			t.Errorf("%s: remarks are %q", name, v.Remarks)
		}
	}
}

// TestBadSectors has a disk fail wherever it is read, in one place after the other. What
// lies there is not read, and says why; all else is as it was.
func TestBadSectors(t *testing.T) {
	for _, seed := range []string{"gpt", "mbr", "lvm"} {
		t.Run(seed, func(t *testing.T) {
			volumes := func(d disk.Sparse) []layout.Volume {
				t.Helper()
				l, err := layout.Read([]layout.Disk{{Name: "vda", Content: d}})
				if err != nil {
					t.Fatal(err)
				}
				return l.Volumes()
			}
			r := &disktest.Recorder{Image: disktest.LoadSeed(t, seed)}
			want := make(map[string]layout.Volume)
			for _, v := range volumes(r) {
				want[v.Name] = v
			}
			hit := 0
			for _, bad := range r.Ranges() {
				seen := make(map[string]bool)
				told := false
				for _, v := range volumes(disktest.BadSector{Image: r.Image, Bad: bad}) {
					seen[v.Name] = true
					switch w := want[v.Name]; {
					case v.Err != nil && w.Err == nil:
						told = true
						if !errors.Is(v.Err, disktest.ErrBadSector) || errors.Is(v.Err, disk.ErrCorrupt) {
							t.Errorf("%+v: %s: %v", bad, v.Name, v.Err)
						}
					case len(v.Remarks) > len(w.Remarks):
						told = true
					case v.Content != w.Content || v.Readable != w.Readable || v.UUID != w.UUID || v.Size != w.Size:
						t.Errorf("%+v: without an error or a remark %s is %+v, was %+v", bad, v.Name, v, w)
					}
				}
				for name := range want {
					if !seen[name] && !told {
						t.Errorf("%+v: %s is not there, and nothing says why", bad, name)
					}
				}
				if told {
					hit++
				}
			}
			if hit == 0 {
				t.Error("no bad sector makes a difference")
			}
		})
	}
}

// TestTableOverFilesystem: a partition table hides what was on the disk before.
func TestTableOverFilesystem(t *testing.T) {
	path := disktest.MakeImage(t, 8<<20, "mkfs.ext4", "-q")
	f := openWrite(t, path)
	entry := []byte{0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0}
	if _, err := f.WriteAt(append(append(entry, make([]byte, 48)...), 0x55, 0xaa), 446); err != nil {
		t.Fatal(err)
	}
	_, v := find(t, readImage(t, path), "vda")
	if v.Table != "mbr" || v.Content != "" || len(v.Remarks) != 1 || !strings.Contains(v.Remarks[0], "ext4") {
		t.Errorf("%+v", v)
	}
}

// TestGroups: two groups of one name, a group of which a disk is missing, a
// physical volume that is damaged.
func TestGroups(t *testing.T) {
	group := func(n int) []string {
		var images, devices []string
		for range n {
			images = append(images, disktest.EmptyImage(t, 8<<20))
			devices = append(devices, testmount.Loop(t, images[len(images)-1], 0, 0))
		}
		tools := testlvm.New(t, devices...)
		tools.Run("vgcreate", append([]string{"-s", "64k", "vg"}, devices...)...)
		tools.Create("-n", "one", "-l", "4", "vg", devices[0])
		if n > 1 {
			tools.Create("-n", "two", "-l", "4", "vg", devices[1])
		}
		disktest.Run(t, "sync", devices...)
		return images
	}
	a, b := group(2), group(1)
	l := readAll(t, a[0], b[0])
	_, one := find(t, l, "vg/one")
	i, two := find(t, l, "vg/two")
	if one.Err != nil || !errors.Is(two.Err, disk.ErrNotExist) {
		t.Errorf("%+v\n%+v", one, two)
	}
	if _, err := l.Bytes(i); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("bytes of what is missing: %v", err)
	}
	_, pv := find(t, l, "vdb")
	other := l.Volumes()[len(l.Volumes())-1]
	if len(pv.Remarks) != 1 || !strings.HasPrefix(other.Name, "vg-") || !strings.HasSuffix(other.Name, "/one") || other.Err != nil {
		t.Errorf("%+v\n%+v", pv, other)
	}
	f := openWrite(t, a[0])
	if _, err := f.WriteAt([]byte("x"), 4096+100); err != nil { // the header of the text
		t.Fatal(err)
	}
	l = readAll(t, a...)
	if _, v := find(t, l, "vda"); len(v.Remarks) == 0 || v.Err != nil {
		t.Errorf("damaged header: %+v", v)
	}
	find(t, l, "vg/two")
	if _, err := f.WriteAt([]byte("~"), 512+40); err != nil { // the label, in a UUID, which has no "~"
		t.Fatal(err)
	}
	l = readAll(t, a...)
	if _, v := find(t, l, "vda"); !errors.Is(v.Err, disk.ErrCorrupt) {
		t.Errorf("damaged label: %+v", v)
	}
	if _, v := find(t, l, "vg/one"); !errors.Is(v.Err, disk.ErrNotExist) {
		t.Errorf("volume on a damaged label: %+v", v)
	}
}

// TestNested: a physical volume in a logical volume, and a partition table in a
// partition, are named and not looked into.
func TestNested(t *testing.T) {
	path := disktest.EmptyImage(t, 16<<20)
	device := testmount.Loop(t, path, 0, 0)
	tools := testlvm.New(t, device)
	tools.Run("vgcreate", "-s", "1M", "vg", device)
	tools.Create("-n", "inner", "-l", "100%FREE", "vg")
	inner := testmount.Loop(t, path, 1<<20, 15<<20)
	testlvm.New(t, inner).Run("vgcreate", "vg", inner)
	disktest.Run(t, "sync", inner)
	l := readImage(t, path)
	if i, v := find(t, l, "vg/inner"); !errors.Is(v.Err, disk.ErrUnsupported) || len(l.Volumes()) != 2 {
		t.Errorf("%d of %d: %+v", i, len(l.Volumes()), v)
	}
	path = disktest.MakeImage(t, 16<<20, "sgdisk", "-n", "1:0:0")
	p := readSfdisk(t, path).Table.Partitions[0]
	deeper := testmount.Loop(t, path, p.Start*512, p.Size*512)
	disktest.Run(t, "sgdisk", "-n", "1:0:0", deeper)
	disktest.Run(t, "sync", deeper)
	if _, v := find(t, readImage(t, path), "vda-part1"); !strings.Contains(v.Title, "partition table") || len(v.Remarks) != 1 {
		t.Errorf("%+v", v)
	}
}

// TestManyPartitions reads a table of more partitions than are kept, all of one
// place, quickly.
func TestManyPartitions(t *testing.T) {
	const disks = 40
	path := disktest.EmptyImage(t, 64<<20)
	args := []string{"-a", "1"}
	for i := range 120 {
		args = append(args, "-n", fmt.Sprintf("%d:0:+64K", i+1))
	}
	disktest.Run(t, "sgdisk", append(args, path)...)
	images := make([]string, disks)
	for i := range images {
		images[i] = path
	}
	var list []layout.Disk
	for i := range images {
		list = append(list, layout.Disk{Name: fmt.Sprint("disk", i), Content: disktest.OpenImage(t, path)})
	}
	list = append(list, layout.Disk{Name: "group", Content: disktest.LoadSeed(t, "lvm")})
	l, err := layout.Read(list)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(l.Volumes()); n > 1024+disks {
		t.Errorf("%d volumes", n)
	}
	for name, want := range map[string]string{
		"disk39": "there are more than 1024 volumes: partitions from number 1 on are left out",
		"group":  "there are more than 1024 volumes: logical volumes from root on are left out",
	} {
		if _, v := find(t, l, name); len(v.Remarks) != 1 || v.Remarks[0] != want {
			t.Errorf("%s: remarks are %q, want %q", name, v.Remarks, want)
		}
	}
}

// TestManyPhysicalVolumes has as many physical volumes as are looked at, and one more.
func TestManyPhysicalVolumes(t *testing.T) {
	var list []layout.Disk
	for i := range 129 {
		list = append(list, layout.Disk{Name: fmt.Sprint("disk", i), Content: disktest.LoadSeed(t, "lvm")})
	}
	l, err := layout.Read(list)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{"disk127": nil, "disk128": disk.ErrLimit} {
		if _, v := find(t, l, name); !errors.Is(v.Err, want) {
			t.Errorf("%s: %v, want %v", name, v.Err, want)
		}
	}
}

// TestBootLoader: what GRUB keeps in a partition of its own is nothing to remark on.
func TestBootLoader(t *testing.T) {
	path := disktest.MakeImage(t, 8<<20, "sgdisk", "-n", "1:0:+1M", "-t", "1:ef02", "-n", "2:0:+1M")
	f := openWrite(t, path)
	for _, p := range readSfdisk(t, path).Table.Partitions {
		if _, err := f.WriteAt([]byte("code"), p.Start*512); err != nil {
			t.Fatal(err)
		}
	}
	l := readImage(t, path)
	for name, want := range map[string]string{"vda-part1": "a boot loader", "vda-part2": "nothing that is recognised"} {
		if _, v := find(t, l, name); v.Title != want || (len(v.Remarks) > 0) != (name == "vda-part2") || v.Err != nil {
			t.Errorf("%s: %+v, want %q", name, v, want)
		}
	}
}

// counting counts what is read of a disk.
type counting struct {
	disk.Sparse
	bytes *atomic.Int64
}

func (c counting) ReadAt(p []byte, off int64) (int, error) {
	c.bytes.Add(int64(len(p)))
	return c.Sparse.ReadAt(p, off)
}

// TestLargeDisk looks at a disk of 15 TiB, all of it one filesystem, and at an
// empty one.
func TestLargeDisk(t *testing.T) {
	const size = 15 << 40
	image := disktest.MakeImage(t, size, "mkfs.btrfs", "-q") // the quickest to make
	bytes := new(atomic.Int64)
	start := time.Now()
	l, err := layout.Read([]layout.Disk{
		{Name: "full", Content: counting{disktest.OpenImage(t, image), bytes}},
		{Name: "empty", Content: counting{disktest.OpenImage(t, disktest.EmptyImage(t, size)), bytes}},
	})
	if err != nil || !l.Volumes()[0].Readable {
		t.Fatalf("%v", err)
	}
	if took := time.Since(start); took > time.Second || bytes.Load() > 2<<20 {
		t.Errorf("it took %v and %d bytes", took, bytes.Load())
	}
}
