package writervm

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// install makes a kernel below root as its package would, newer than those before.
func install(t *testing.T, root, version, dep, builtin string) Kernel {
	t.Helper()
	k := Kernel{filepath.Join(root, "boot/vmlinuz-"+version), filepath.Join(root, "lib/modules", version)}
	put(t, k.Image, "kernel")
	put(t, filepath.Join(k.Modules, "modules.dep"), dep)
	put(t, filepath.Join(k.Modules, "modules.builtin"), builtin)
	all, err := filepath.Glob(filepath.Join(root, "boot/*"))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(int64(len(all)), 0)
	if err := os.Chtimes(k.Image, at, at); err != nil {
		t.Fatal(err)
	}
	return k
}

// dep is a modules.dep as depmod writes it, of a kernel with compressed modules.
const dep = `kernel/fs/xfs/xfs.ko.zst: kernel/lib/libcrc32c.ko.zst
kernel/lib/libcrc32c.ko.zst:
kernel/crypto/crc32c-generic.ko.zst:
kernel/drivers/block/virtio_blk.ko.zst: kernel/drivers/virtio/virtio.ko.zst kernel/drivers/virtio/virtio_ring.ko.zst
/extra/virtio_console.ko.zst: kernel/drivers/virtio/virtio.ko.zst kernel/drivers/virtio/virtio_ring.ko.zst
`

const builtin = "kernel/drivers/virtio/virtio_pci.ko\nkernel/fs/btrfs/btrfs.ko\n"

func TestModulesComeInOrder(t *testing.T) {
	k := install(t, t.TempDir(), "6.1", dep, builtin)
	got, err := k.check("xfs")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range got {
		names = append(names, moduleName(path))
	}
	if want := []string{"crc32c_generic", "virtio_ring", "virtio", "virtio_blk", "virtio_console", "libcrc32c", "xfs"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	if got[0] != filepath.Join(k.Modules, "kernel/crypto/crc32c-generic.ko.zst") || got[4] != "/extra/virtio_console.ko.zst" {
		t.Errorf("paths %q", got)
	}
	if got, err := k.check("btrfs"); err != nil || len(got) != 5 {
		t.Errorf("a filesystem in the kernel itself: %q, %v", got, err)
	}
}

func TestWhichKernel(t *testing.T) {
	root := t.TempDir()
	find := func(version, want string) {
		t.Helper()
		k, err := findKernel(root, version, "xfs")
		if want == "" {
			if !errors.Is(err, ErrKernel) || !strings.Contains(err.Error(), "apt-get install linux-image") {
				t.Errorf("%q: %v, %v", version, k, err)
			}
			return
		}
		if err != nil || filepath.Base(k.Image) != "vmlinuz-"+want || filepath.Base(k.Modules) != want {
			t.Errorf("%q: %v, %v; want %q", version, k, err, want)
		}
	}
	find("5.10", "")
	install(t, root, "5.9", "", builtin)
	find("5.9", "") // it has no XFS
	install(t, root, "5.10", dep, builtin)
	install(t, root, "6.12", dep, builtin)
	bare := install(t, root, "6.13", dep, builtin)
	if err := os.RemoveAll(bare.Modules); err != nil {
		t.Fatal(err)
	}
	find("5.10", "5.10")
	find("4.4", "6.12")
	find("5.9", "6.12")
	find("", "6.12")
}

// TestKernelByName: what is named is taken, and an error names it.
func TestKernelByName(t *testing.T) {
	k := install(t, t.TempDir(), "6.1", dep, builtin)
	if got, err := k.Find("xfs"); err != nil || got != k {
		t.Errorf("%v, %v", got, err)
	}
	for _, c := range []struct{ image, modules, fstype, want string }{
		{k.Image + "x", k.Modules, "xfs", k.Image + "x"},
		{k.Image, k.Modules + "x", "xfs", k.Modules + "x"},
		{k.Image, k.Modules, "bcachefs", "it has no bcachefs"},
		{k.Image, "", "xfs", "/lib/modules/6.1/modules.dep"},
		{"", k.Modules, "xfs", "no kernel"},
	} {
		if _, err := (Kernel{c.image, c.modules}).Find(c.fstype); !errors.Is(err, ErrKernel) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestModulesAreDecompressed(t *testing.T) {
	dir, content := t.TempDir(), bytes.Repeat([]byte("module"), 10000)
	for ending, compress := range map[string]func(w io.Writer) (io.WriteCloser, error){
		".ko.gz":  func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		".ko.xz":  func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
		".ko.zst": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
	} {
		var b bytes.Buffer
		w, err := compress(&b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "m"+ending)
		put(t, path, b.String())
		if got, err := readModule(path); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v", ending, len(got), err)
		}
		put(t, path, "nonsense")
		if _, err := readModule(path); err == nil {
			t.Errorf("%s: nonsense is a module", ending)
		}
	}
	put(t, filepath.Join(dir, "m.ko.lz4"), "")
	if _, err := readModule(filepath.Join(dir, "m.ko.lz4")); err == nil || !strings.Contains(err.Error(), ".lz4") {
		t.Errorf("%v", err)
	}
}

// TestInitramfsIsAnArchive: cpio reads it.
func TestInitramfsIsAnArchive(t *testing.T) {
	var archive bytes.Buffer
	c := &cpio{to: &archive}
	c.add("dev", 0o040755, nil)
	c.device("dev/console", 0o020600, 5, 1)
	c.add("init", 0o100755, []byte("program"))
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	list := exec.Command("cpio", "-itv", "--quiet", "--numeric-uid-gid")
	list.Stdin = &archive
	out, err := list.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for i, want := range [][]string{{"drwxr-xr-x", "dev"}, {"crw-------", "5,", "1", "dev/console"}, {"-rwxr-xr-x", "7", "init"}} {
		line := strings.Split(string(out), "\n")[i]
		for _, w := range want {
			if !slices.Contains(strings.Fields(line), w) {
				t.Errorf("%q lacks %q", line, w)
			}
		}
	}
}

func TestOnlyAStaticProgram(t *testing.T) {
	if _, err := staticProgram("/bin/sh"); err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("%v", err)
	}
	if _, err := staticProgram("kernel.go"); err == nil {
		t.Error("source is a program")
	}
}
