package layout_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/internal/testlvm"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// deleted is the content of a file that is deleted again.
var deleted = strings.Repeat("this was deleted by its owner..", 64<<10)

// random returns n bytes that are the same for the same seed.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), 1}).Read(b) // has no error
	return b
}

// TestUnused overwrites all that is said to be unused of a disk with one of each
// filesystem. Nothing that anybody needs may be missing then, and nothing that was
// deleted may be there.
func TestUnused(t *testing.T) {
	path := disktest.EmptyImage(t, 1000<<20)
	disktest.Run(t, "sgdisk", "-n", "1:0:+100M", "-n", "2:0:+350M", "-n", "3:0:+200M", "-n", "4:0:+50M", "-n", "5:0:+50M", "-n", "6:0:0", path)
	p := readSfdisk(t, path).Table.Partitions
	loop := func(i int) string { return testmount.Loop(t, path, p[i].Start*512, p[i].Size*512) }
	kinds := []struct{ kind, check string }{
		{"ext4", "e2fsck -fn"}, {"xfs", "xfs_repair -n"}, {"btrfs", "btrfs check"},
	}
	var loops []string
	for i, k := range kinds {
		loops = append(loops, loop(i))
		disktest.Run(t, "mkfs."+k.kind, loops[i])
		disktest.Run(t, "sync", loops[i])
	}
	swap, unknown, pv := loop(3), p[4], loop(5)
	disktest.Run(t, "mkswap", "-q", swap)
	tools := testlvm.New(t, pv)
	tools.Run("vgcreate", "vg", pv)
	tools.Create("-n", "swap", "-L", "64M", "vg")
	disktest.Run(t, "sync", swap, pv)
	f := openWrite(t, path)
	noise := random(200, 1<<20)
	for _, at := range []int64{unknown.Start * 512, p[3].Start*512 + 1<<20} { // of no filesystem, and swapped out
		if _, err := f.WriteAt(noise, at); err != nil {
			t.Fatal(err)
		}
	}
	var before []string
	for i, k := range kinds {
		dir, unmount := disktest.Mount(t, loops[i], k.kind, "rw")
		for n := range 40 {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("file", n)), random(uint64(n), 100_000), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "gone"), []byte(deleted), 0o644); err != nil {
			t.Fatal(err)
		}
		disktest.Run(t, "sync", "-f", dir)
		for _, name := range []string{"gone", "file7", "file20"} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		disktest.Run(t, "sync", "-f", dir)
		unmount()
		before = append(before, contents(t, loops[i], k.kind))
	}

	l := readAll(t, path)
	list := l.Unused()[0].Ranges
	checkUnused(t, list, p[3].Start*512, p[4].Start*512, p[5].Start*512)
	junk := bytes.Repeat([]byte{0xa5}, 1<<20)
	for _, u := range list {
		for off := u.Offset; off < u.Offset+u.Length; off += int64(len(junk)) {
			if _, err := f.WriteAt(junk[:min(int64(len(junk)), u.Offset+u.Length-off)], off); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	for i, k := range kinds {
		fresh := loop(i) // with nothing in its cache
		disktest.Run(t, "sh", "-c", k.check+" "+fresh)
		if after := contents(t, fresh, k.kind); after != before[i] {
			t.Errorf("%s: the files are\n%s\nand were\n%s", k.kind, after, before[i])
		}
	}
	all, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if i := bytes.Index(all, []byte(deleted[:4096])); i >= 0 {
		t.Errorf("a page of the deleted file is at %d", i)
	}
	if n := bytes.Count(all, noise[:4096]); n != 1 {
		t.Errorf("the noise is there %d times, want once: in the volume that nobody knows", n)
	}
}

// contents is the names and sums of the files on a device.
func contents(t *testing.T, device, kind string) string {
	t.Helper()
	dir, unmount := disktest.Mount(t, device, kind, "ro")
	defer unmount()
	return string(disktest.Run(t, "sh", "-c", "cd "+dir+" && find . -type f | sort | xargs sha256sum"))
}

// checkUnused checks the order of the ranges, and what they say of the volumes
// that start there: swap space, one that nobody knows, and an LVM group that has
// nothing but swap space and no volume behind it.
func checkUnused(t *testing.T, list []layout.UnusedRange, swap, unknown, pv int64) {
	t.Helper()
	end, swapped := int64(0), int64(0)
	for _, u := range list {
		if u.Offset < end || u.Length <= 0 {
			t.Errorf("%+v comes after %d", u, end)
		}
		end = u.Offset + u.Length
		if u.Offset < unknown+50<<20 && end > unknown || u.Offset < pv+1<<20 && end > pv {
			t.Errorf("%+v is in the volume that nobody knows at %d, or in the metadata of LVM at %d", u, unknown, pv)
		}
		if u.Swap {
			swapped += u.Length
		}
	}
	if want := int64(50<<20 - 64<<10); swapped != want {
		t.Errorf("%d bytes of swap space are unused, want %d", swapped, want)
	}
	for _, u := range list {
		if u.Swap && u.Offset != swap+64<<10 {
			t.Errorf("%+v is no swap space", u)
		}
	}
	if len(list) < 10 {
		t.Errorf("only %d ranges are unused", len(list))
	}
}

// TestUnusedClaims: what two volumes claim is in use if one of them says so, and
// what cannot be read is.
func TestUnusedClaims(t *testing.T) {
	path := disktest.MakeImage(t, 64<<20, "mkfs.ext4", "-q", "-b", "1024")
	content, size := disktest.OpenFile(t, path)
	data := make([]byte, size)
	if _, err := content.ReadAt(data, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	free := func(d []byte) (sum int64, kept []error) {
		l, err := layout.Read([]layout.Disk{{Name: "vda", Content: disktest.Mem(d)}})
		if err != nil {
			t.Fatal(err)
		}
		u := l.Unused()[0]
		for _, g := range u.Ranges {
			sum += g.Length
		}
		return sum, u.Kept
	}
	whole, kept := free(data)
	if whole < 40<<20 || len(kept) > 0 {
		t.Errorf("%d bytes of an empty filesystem are unused, %v", whole, kept)
	}
	if longer, kept := free(append(bytes.Clone(data), random(3, 1<<20)...)); longer != whole || len(kept) > 0 {
		t.Errorf("what is behind the filesystem counts: %d bytes, %d without, %v", longer, whole, kept)
	}
	for want, change := range map[string]func(d []byte){
		`layout: volume "vda": ext4: superblock`: func(d []byte) { copy(d[1024+0x18:], "\xff\xff\xff\xff") }, // an impossible size of blocks
		`layout: volume "vda": ext4: block bitmap of group 0`: func(d []byte) {
			bitmap := binary.LittleEndian.Uint32(d[2048:])
			d[bitmap*1024] ^= 1
		},
		`layout: volume "vda" at offset 0x0: not supported: it holds a LUKS container`: func(d []byte) { copy(d, "LUKS\xba\xbe\x00\x01") },
	} {
		damaged := bytes.Clone(data)
		change(damaged)
		n, kept := free(damaged)
		if n != 0 || len(kept) != 1 || !strings.HasPrefix(kept[0].Error(), want) || strings.Contains(kept[0].Error(), "as an image") {
			t.Errorf("%d bytes are unused, %v, want %s", n, kept, want)
		}
	}
	if n, kept := free(random(5, 1<<20)); n != 0 || len(kept) > 0 {
		t.Errorf("of a disk that nobody knows %d bytes are unused, %v", n, kept)
	}
}
