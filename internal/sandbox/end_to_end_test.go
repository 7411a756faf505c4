package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
)

// A tree goes into ext4, into a GPT, into a qcow2, into an internal snapshot of
// it; and comes back through the worker as it was.
func TestEndToEnd(t *testing.T) {
	tree := makeTree(t)
	image := makeImage(t, tree)
	run(t, "qemu-img", "snapshot", "-c", "kept", image)
	// From here on the active state holds nothing that can be read.
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 0xee 0 8M", image)

	for _, c := range []struct{ name, snapshot string }{{"by name", "kept"}, {"by ID", "1"}} {
		t.Run("snapshot "+c.name, func(t *testing.T) {
			d := start(t, image, DiskSpec{Format: Qcow2, Snapshot: c.snapshot})
			list, err := d.Volumes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(list) != 3 || list[0].Kind != WholeDisk || list[0].Table != "gpt" || list[0].Size != d.Disks()[0].Size() {
				t.Fatalf("volumes: %+v", list)
			}
			if v := list[2]; v.Kind != Partition || v.Parent != 0 || v.Number != 2 || v.Content != "ext4" || !v.Readable ||
				string(v.Label) != "data" || string(v.PartLabel) != "the data" {
				t.Fatalf("volume 2: %+v", v)
			}
			if v := list[1]; v.Content != "swap" || v.Readable || string(v.Label) != "paging" {
				t.Errorf("volume 1: %+v", v)
			}
			filesystem, err := d.Filesystem(t.Context(), dataVolume)
			if err != nil {
				t.Fatal(err)
			}
			if i := filesystem.Info(); i.Type != "ext4" || string(i.Label) != "data" || uuidText(i.UUID) != list[2].UUID {
				t.Errorf("filesystem: %+v", i)
			}
			if c.name == "by name" { // the other is the same
				compareTree(t, filesystem, tree, asListed)
				compareVolume(t, d, list[2])
			}
		})
	}
	t.Run("several readers at once", func(t *testing.T) {
		d := start(t, image, DiskSpec{Format: Qcow2, Snapshot: "kept"})
		filesystem, err := d.Filesystem(t.Context(), dataVolume)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range []order{asListed, byName, byName} {
			t.Run("reader", func(t *testing.T) {
				t.Parallel()
				compareTree(t, filesystem, tree, o)
			})
		}
	})
	t.Run("active state", func(t *testing.T) {
		d := start(t, image, DiskSpec{Format: Qcow2})
		k := d.Disks()[0]
		list, err := k.Snapshots(t.Context())
		if err != nil || len(list) != 1 || string(list[0].Name) != "kept" || list[0].DiskSize != k.Size() || list[0].StateSize != 0 {
			t.Errorf("snapshots: %+v, %v", list, err)
		}
		b := make([]byte, 4096)
		if _, err := k.ReadAt(b, 1<<20); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{0xee}, 4096)) {
			t.Errorf("the active state reads % x…, %v", b[:8], err)
		}
		if _, err := d.Filesystem(t.Context(), dataVolume); !errors.Is(err, disk.ErrNotExist) {
			t.Errorf("a filesystem in an overwritten disk: %v", err)
		}
	})
	t.Run("no such snapshot", func(t *testing.T) {
		_, err := Start(t.Context(), Options{}, DiskSpec{Name: "d", File: openFile(t, image), Format: Qcow2, Snapshot: "lost"})
		if e := new(disk.Error); !errors.Is(err, disk.ErrNotExist) || !errors.As(err, &e) || e.Layer != "qcow2" {
			t.Errorf("got %v", err)
		}
	})
}

// What is declared counts, and is checked.
func TestDeclarations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
	base := filepath.Join(t.TempDir(), "base.raw")
	if err := os.WriteFile(base, bytes.Repeat([]byte("base"), 1<<18), 0o600); err != nil {
		t.Fatal(err)
	}
	over := filepath.Join(t.TempDir(), "over.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, over)

	t.Run("a qcow2 header on a raw disk is content", func(t *testing.T) {
		d := start(t, path, DiskSpec{Format: Raw})
		b := make([]byte, 4)
		if _, err := d.Disks()[0].ReadAt(b, 0); err != nil || string(b) != "QFI\xfb" {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("raw content is no qcow2", func(t *testing.T) {
		_, err := Start(t.Context(), Options{}, DiskSpec{Name: "d", File: openFile(t, base), Format: Qcow2})
		if !errors.Is(err, disk.ErrCorrupt) && !errors.Is(err, disk.ErrUnsupported) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("backing file", func(t *testing.T) {
		if _, err := Start(t.Context(), Options{}, DiskSpec{Name: "d", File: openFile(t, over), Format: Qcow2}); err == nil {
			t.Error("an image was read without the backing file that it needs")
		}
		d := start(t, over, DiskSpec{Format: Qcow2, Backing: &DiskSpec{File: openFile(t, base), Format: Raw}})
		b := make([]byte, 8)
		if _, err := d.Disks()[0].ReadAt(b, 4096); err != nil || string(b) != "basebase" {
			t.Errorf("%q, %v", b, err)
		}
	})
	for name, spec := range map[string]DiskSpec{
		"no format":           {File: openFile(t, path)},
		"unknown format":      {File: openFile(t, path), Format: "vmdk"},
		"no file":             {Format: Raw},
		"snapshot of raw":     {File: openFile(t, path), Format: Raw, Snapshot: "x"},
		"backing file of raw": {File: openFile(t, path), Format: Raw, Backing: &DiskSpec{File: openFile(t, base), Format: Raw}},
		"a name with a slash": {Name: "a/b", File: openFile(t, path), Format: Qcow2},
		"sector size":         {File: openFile(t, path), Format: Raw, SectorSize: 1024},
		"open for writing":    {File: writableImage(t), Format: Raw},
		"a folder":            {File: openFile(t, t.TempDir()), Format: Raw},
		"a character device":  {File: openFile(t, "/dev/zero"), Format: Raw},
	} {
		t.Run(name, func(t *testing.T) {
			spec.Name = cmp.Or(spec.Name, "d")
			if d, err := Start(t.Context(), Options{}, spec); err == nil {
				d.Close()
				t.Error("accepted")
			} else if e := new(Error); errors.As(err, &e) {
				t.Errorf("refused by the worker only: %v", err)
			}
		})
	}
}

// dataVolume is the volume of makeImage's disk that holds the tree.
const dataVolume = "disk.qcow2-part2"

func uuidText(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

func start(t testing.TB, path string, spec DiskSpec) *Reader {
	t.Helper()
	spec.Name, spec.File = filepath.Base(path), openFile(t, path)
	d, err := Start(context.WithoutCancel(t.Context()), Options{}, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func openFile(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// makeTree makes a folder with every type of file.
func makeTree(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(root, name) }
	write := func(name string, content []byte) {
		t.Helper()
		check(os.WriteFile(at(name), content, 0o644))
	}
	for _, d := range []string{"etc", "empty", "many", "deep"} {
		check(os.Mkdir(at(d), 0o755))
	}
	write("etc/passwd", []byte("root:x:0:0::/:/bin/sh\n"))
	write("etc/nothing", nil)
	write("etc/\x1b[31m\xff\u202e name", []byte("x"))
	check(os.Link(at("etc/passwd"), at("etc/also")))
	check(os.Symlink("passwd", at("etc/link")))
	check(os.Symlink(strings.Repeat("long/", 100), at("etc/slow link")))
	check(unix.Mknod(at("etc/device"), unix.S_IFCHR|0o600, int(unix.Mkdev(5, 300))))
	check(unix.Mkfifo(at("etc/fifo"), 0o600))
	check(os.Lchown(at("etc/passwd"), 1234, 70000))
	check(os.Chmod(at("etc/nothing"), 0o4750|os.ModeSetuid))
	check(unix.Setxattr(at("etc/passwd"), "user.comment", []byte("hello"), 0))
	check(unix.Setxattr(at("etc/passwd"), "user.big", bytes.Repeat([]byte("v"), 3000), 0))
	for i := range 3000 {
		write(fmt.Sprintf("many/file with a longer name %04d", i), bytes.Repeat(fmt.Appendf(nil, "%d,", i), i%400))
	}
	deep := "deep"
	for range 40 {
		deep += "/d"
		check(os.Mkdir(at(deep), 0o755))
	}
	write(deep+"/bottom", []byte("here"))
	write("large", pattern(9<<20+123))
	write("medium", pattern(200<<10))
	sparse, err := os.Create(at("sparse"))
	check(err)
	_, err = sparse.WriteAt(pattern(70000), 5<<20)
	check(err)
	check(sparse.Truncate(20 << 20))
	check(sparse.Close())
	hole, err := os.Create(at("small hole"))
	check(err)
	_, err = hole.WriteAt([]byte("end"), 60000)
	check(err)
	check(hole.Close())
	return root
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>16 ^ i>>8 ^ i*7)
	}
	return b
}

// makeImage makes a qcow2 with a GPT, with swap and an ext4 that holds tree.
func makeImage(t testing.TB, tree string) string {
	t.Helper()
	dir := t.TempDir()
	raw, part, image := filepath.Join(dir, "raw"), filepath.Join(dir, "part"), filepath.Join(dir, "disk.qcow2")
	for path, size := range map[string]int64{raw: 68 << 20, part: 64 << 20} {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	run(t, "mke2fs", "-q", "-t", "ext4", "-b", "4096", "-L", "data", "-d", tree, part)
	run(t, "sgdisk", "-Z", "-n", "1:2048:+1M", "-n", "2:6144:+64M", "-c", "2:the data", raw)
	run(t, "dd", "if="+part, "of="+raw, "bs=1M", "seek=3", "conv=notrunc,sparse", "status=none")
	swap := filepath.Join(dir, "swap")
	if err := os.WriteFile(swap, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "mkswap", "-q", "-L", "paging", swap)
	run(t, "dd", "if="+swap, "of="+raw, "bs=1M", "seek=1", "conv=notrunc", "status=none")
	run(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, image)
	return image
}
