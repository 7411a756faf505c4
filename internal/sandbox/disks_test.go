package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/internal/testlvm"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// TestBitmaps lists the dirty bitmaps of an image, and reads one that QEMU has
// recorded writes in.
func TestBitmaps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "64M")
	run(t, "qemu-img", "bitmap", "--add", "-g", "65536", path, "night")
	run(t, "qemu-io", "-f", "qcow2", "-c", "write 1M 100k", "-c", "write 30M 1", path)
	run(t, "qemu-img", "bitmap", "--add", "--disable", path, "idle")
	d := start(t, path, DiskSpec{Format: Qcow2}).Disks()[0]
	list, err := d.Bitmaps(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, b := range list {
		if b.State != BitmapConsistent || b.Granularity != 65536 || b.Auto != (string(b.Name) == "night") {
			t.Errorf("%s: %+v", b.Name, b)
		}
	}
	var got []string
	err = d.DirtyRanges(t.Context(), "night", func(off, length int64) error {
		got = append(got, fmt.Sprintf("%d+%d", off>>16, length>>16))
		return nil
	})
	if text := strings.Join(got, " "); err != nil || text != "16+2 480+1" {
		t.Errorf("the bitmap says %s, %v", text, err)
	}
	if err := d.DirtyRanges(t.Context(), "lost", func(int64, int64) error { return nil }); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("a bitmap that is not there: %v", err)
	}
}

// TestManyDirtyRanges: they come in several answers, each once.
func TestManyDirtyRanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "16M")
	run(t, "qemu-img", "bitmap", "--add", "-g", "512", path, "b")
	const count = 5000
	var script strings.Builder
	for i := range count {
		fmt.Fprintf(&script, "write -q %d 512\n", i*1024)
	}
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "sh", "-c", "qemu-io -f qcow2 "+path+" <"+file)
	d := start(t, path, DiskSpec{Format: Qcow2}).Disks()[0]
	n := int64(0)
	err := d.DirtyRanges(t.Context(), "b", func(off, length int64) error {
		if off != n*1024 || length != 512 {
			return fmt.Errorf("range %d is %d bytes at %d", n, length, off)
		}
		n++
		return nil
	})
	if err != nil || n != count {
		t.Errorf("%d ranges, %v", n, err)
	}
	if err := d.DirtyRanges(t.Context(), "b", func(int64, int64) error { return io.ErrShortWrite }); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("the error of yield became %v", err)
	}
}

// TestUnused: the worker says of each disk what is not used, in several answers, and
// what a reader without a worker says.
func TestUnused(t *testing.T) {
	dir := t.TempDir()
	blocks, swap := filepath.Join(dir, "blocks.raw"), filepath.Join(dir, "swap.raw")
	run(t, "mke2fs", "-q", "-b", "1024", "-t", "ext4", "-O", "^has_journal", blocks, "32M")
	var script strings.Builder
	content := filepath.Join(dir, "content")
	if err := os.WriteFile(content, bytes.Repeat([]byte{1}, 28<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&script, "write %s file\n", content)
	for i := 0; i < 28<<10; i += 3 { // far more ranges than one answer has
		fmt.Fprintf(&script, "punch file %d %d\n", i, i)
	}
	file := filepath.Join(dir, "script")
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "debugfs", "-w", "-f", file, blocks)
	run(t, "truncate", "-s", "8M", swap)
	run(t, "mkswap", "-q", swap)
	data, err := os.ReadFile(blocks)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := raw.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := layout.Read([]layout.Disk{{Name: "blocks", Content: whole}})
	if err != nil {
		t.Fatal(err)
	}
	want := l.Unused()[0].Ranges
	n := 0
	d := start(t, blocks, DiskSpec{Format: Raw}).Disks()[0]
	kept, err := d.Unused(t.Context(), func(off, length int64, swap bool) error {
		if n == len(want) || off != want[n].Offset || length != want[n].Length || swap {
			return fmt.Errorf("range %d is %d bytes at %d", n, length, off)
		}
		n++
		return nil
	})
	if err != nil || n != len(want) || n < 9000 || len(kept) > 0 {
		t.Errorf("%d ranges of %d, kept: %v, %v", n, len(want), kept, err)
	}
	var got []string
	_, err = start(t, swap, DiskSpec{Format: Raw}).Disks()[0].Unused(t.Context(), func(off, length int64, swap bool) error {
		got = append(got, fmt.Sprintf("%d+%d %v", off, length, swap))
		return nil
	})
	if text := strings.Join(got, ", "); err != nil || text != "65536+8323072 true" {
		t.Errorf("of swap space %s is unused, %v", text, err)
	}
	run(t, "debugfs", "-w", "-R", "set_super_value state 3", blocks)
	kept, err = start(t, blocks, DiskSpec{Format: Raw}).Disks()[0].Unused(t.Context(), func(off, length int64, _ bool) error {
		return fmt.Errorf("%d bytes at %d are unused of a filesystem that does not know", length, off)
	})
	if err != nil || len(kept) != 1 || !errors.Is(kept[0], disk.ErrCorrupt) || !strings.HasPrefix(kept[0].Error(), `layout: volume "blocks.raw": ext4: superblock`) {
		t.Errorf("kept: %v, %v", kept, err)
	}
}

// TestDataFile reads an image whose data lies in a file of its own.
func TestDataFile(t *testing.T) {
	dir := t.TempDir()
	path, data := filepath.Join(dir, "disk.qcow2"), filepath.Join(dir, "data")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+data, path, "1M")
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 0 1M", path)
	if r, err := Start(t.Context(), Options{}, DiskSpec{Name: "d", File: openFile(t, path), Format: Qcow2}); err == nil {
		r.Close()
		t.Error("it was read without its data file")
	}
	d := start(t, path, DiskSpec{Format: Qcow2, DataFile: openFile(t, data)}).Disks()[0]
	b := make([]byte, 1<<20)
	if _, err := d.ReadAt(b, 0); err != nil && err != io.EOF || !bytes.Equal(b, bytes.Repeat([]byte{0x5a}, 1<<20)) {
		t.Errorf("% x…, %v", b[:8], err)
	}
}

// TestSeveralDisks reads a filesystem in a logical volume that lies on two disks.
func TestSeveralDisks(t *testing.T) {
	dir := t.TempDir()
	var specs []DiskSpec
	var devices []string
	for _, name := range []string{"vda", "vdb"} {
		path := filepath.Join(dir, name)
		run(t, "truncate", "-s", "40M", path)
		devices = append(devices, testmount.Loop(t, path, 0, 0))
		specs = append(specs, DiskSpec{Name: name, File: openFile(t, path), Format: Raw})
	}
	l := testlvm.New(t, devices...)
	l.Run("vgcreate", append([]string{"-y", "pool"}, devices...)...)
	l.Create("-l", "100%FREE", "-n", "data", "pool")
	tree := t.TempDir()
	want := pattern(50 << 20)
	if err := os.WriteFile(filepath.Join(tree, "large"), want, 0o644); err != nil {
		t.Fatal(err)
	}
	fs := filepath.Join(dir, "fs")
	run(t, "mke2fs", "-q", "-t", "ext4", "-d", tree, fs, "72M")
	start := l.Number("pvs", "pe_start", devices[0])
	each := int64(36 << 20) // nine extents of 4 MiB fit on each disk
	for i, device := range devices {
		run(t, "dd", "if="+fs, "of="+device, "bs=1M", fmt.Sprintf("skip=%d", int64(i)*each>>20), "count=36", fmt.Sprintf("seek=%d", start), "oflag=seek_bytes", "conv=notrunc,fsync", "status=none")
		testmount.Detach(t, device)
	}
	r, err := Start(t.Context(), Options{Name: "web"}, specs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	filesystem, err := r.Filesystem(t.Context(), "pool/data")
	if err != nil {
		list, _ := r.Volumes(t.Context())
		t.Fatalf("%v: %+v", err, list)
	}
	n, err := disk.Lookup(filesystem, []byte("/large"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := filesystem.Open(n.Ino)
	if err != nil {
		t.Fatal(err)
	}
	compareContent(t, "large", f, want)
	var places []string
	err = r.Places(t.Context(), "pool/data", func(p Place) error {
		places = append(places, fmt.Sprintf("%d+%d at %s %d", p.Offset, p.Length, p.Disk.Name(), p.At))
		return nil
	})
	if want := []string{fmt.Sprintf("0+%d at vda %d", each, start), fmt.Sprintf("%d+%d at vdb %d", each, each, start)}; err != nil || !slices.Equal(places, want) {
		t.Errorf("the volume lies at %q, %v; want %q", places, err, want)
	}
	if err := r.Places(t.Context(), "pool/data", func(Place) error { return io.ErrShortWrite }); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("the error of yield became %v", err)
	}
	if err := r.Places(t.Context(), "pool/none", nil); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("a volume that is not there: %v", err)
	}
	// The first disk alone holds half of it, and says so.
	alone, err := Start(t.Context(), Options{}, specs[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { alone.Close() })
	if _, err := alone.Filesystem(t.Context(), "pool/data"); err == nil || !strings.Contains(err.Error(), "pool") {
		t.Errorf("half of a volume: %v", err)
	}
}
