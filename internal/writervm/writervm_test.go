package writervm_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/testguest"
	"github.com/drydock-vm/drydock/internal/testmount"
	"github.com/drydock-vm/drydock/internal/writervm"
)

// The program that is process 1 of the machines, built once.
var drydock string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "writervm-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	drydock = filepath.Join(dir, "drydock")
	c := exec.Command("go", "build", "-o", drydock, "github.com/drydock-vm/drydock/cmd/drydock")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// options are those of the guests' kernel. KVM is not tried: it hangs where tests run.
func options(t *testing.T) writervm.Options {
	t.Helper()
	return writervm.Options{
		Kernel:      writervm.Kernel{Image: filepath.Join(testguest.KernelFolder(t), "vmlinuz"), Modules: testguest.ModulesFolder(t)},
		Accelerator: writervm.TCG, Executable: drydock,
		Damaged: func(path []byte, _ uint64, err error) { t.Errorf("damaged: %q: %v", path, err) },
		Warn:    func(path []byte, text string) { t.Errorf("warning: %q: %s", path, text) },
	}
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// The sizes of images in bytes: btrfs needs 109 MiB, XFS 300.
const (
	smallSize = 128 << 20
	imageSize = 512 << 20
)

// makeImage makes an image with a new filesystem.
func makeImage(t *testing.T, fstype string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.raw")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs."+fstype, "-q", path)
	return path
}

// mounted shows an image as the host's kernel sees it.
func mounted(t *testing.T, path string) string {
	t.Helper()
	dir, _ := testmount.Image(t, path, "ro")
	return dir
}

// world is what is in a folder.
type world struct{ list, holes, flags []string }

// sgi are the ACLs that are listed already, as XFS has them.
var sgi = regexp.MustCompile(` trusted\.SGI_ACL_[A-Z]+="(\\.|[^"\\])*"`)

func look(t *testing.T, dir string) world {
	t.Helper()
	w := world{treetest.List(t, dir), treetest.Holes(t, dir), treetest.Flags(t, dir)}
	for i, line := range w.list {
		w.list[i] = sgi.ReplaceAllString(line, "")
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	w.list = append(w.list, fmt.Sprintf("the root directory %o %d:%d %v", st.Mode, st.Uid, st.Gid, st.Mtim))
	return w
}

// everything is a guest's ext4 with a tree of everything, and what the kernel says is
// in it.
func everything(t *testing.T) (disk.Filesystem, world) {
	t.Helper()
	path := makeImage(t, "ext4", imageSize)
	dir, unmount := testmount.Image(t, path, "")
	treetest.MakeIn(t, dir, treetest.Without{LargeMinors: true})
	treetest.Extreme(t, dir)
	if err := errors.Join(os.Chown(dir, 7, 70000), os.Chmod(dir, 0o751|os.ModeSticky), os.Remove(filepath.Join(dir, "lost+found")), os.Chtimes(dir, time.Unix(1, 2), time.Unix(3, 4))); err != nil {
		t.Fatal(err)
	}
	w := look(t, dir)
	unmount()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	d, err := raw.Open(f, imageSize)
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := ext4.Open(d, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return fsys, w
}

// TestEverythingIsWritten: what people put into a tree, and what few programs can keep.
func TestEverythingIsWritten(t *testing.T) {
	fsys, want := everything(t)
	for fstype, check := range map[string][]string{"xfs": {"xfs_repair", "-n"}, "btrfs": {"btrfs", "check"}} {
		t.Run(fstype, func(t *testing.T) {
			path := makeImage(t, fstype, imageSize)
			if err := writervm.Write(t.Context(), path, fstype, fsys, options(t)); err != nil {
				t.Fatal(err)
			}
			tool(t, check[0], append(check[1:], path)...)
			got := look(t, mounted(t, path))
			treetest.Compare(t, got.list, want.list)
			treetest.Compare(t, got.holes, want.holes)
			treetest.Compare(t, got.flags, want.flags)
		})
	}
}

// TestHollow: without content a file has its blocks all the same, but where it has holes,
// nothing is read, and the image takes no room for it.
func TestHollow(t *testing.T) {
	const size, hole = 200<<20 + 5, 40 << 20
	f := treetest.NewFake()
	f.File(treetest.Root, "large", 10, unread{t, treetest.Extents{{Length: hole}, {Length: hole, Kind: disk.ExtentHole}, {Length: size - 2*hole}}})
	for i := range 50 {
		f.File(treetest.Root, fmt.Sprint(i), uint64(100+i), unread{t, treetest.Extents{{Length: int64(i * 1000)}}})
	}
	for fstype, check := range map[string][]string{"xfs": {"xfs_repair", "-n"}, "btrfs": {"btrfs", "check", "--check-data-csum"}} {
		t.Run(fstype, func(t *testing.T) {
			path, o := makeImage(t, fstype, imageSize), options(t)
			o.Hollow = true
			if err := writervm.Write(t.Context(), path, fstype, f, o); err != nil {
				t.Fatal(err)
			}
			tool(t, check[0], append(check[1:], path)...)
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != nil || st.Blocks*512 > 80<<20 { // mkfs.xfs writes a log of 64 MiB
				t.Errorf("the image takes %d bytes, %v", st.Blocks*512, err)
			}
			dir := mounted(t, path)
			if holes, want := treetest.Holes(t, dir), []string{fmt.Sprintf(`"large" has holes at %d+%d`, hole, hole)}; !slices.Equal(holes, want) {
				t.Errorf("%q, want %q", holes, want)
			}
			for i, line := range treetest.List(t, dir) {
				if i < 50 && !strings.Contains(line, "000 bytes ") && !strings.Contains(line, " 0 bytes ") {
					t.Errorf("%s", line)
				}
			}
		})
	}
}

// unread is a file of which nothing may be read.
type unread struct {
	t *testing.T
	disk.Sparse
}

func (u unread) ReadAt([]byte, int64) (int, error) {
	u.t.Error("content is read")
	return 0, errors.New("nobody may read it")
}

// TestWhatCannotBeWritten: what is damaged, or a lie, or more than the kernel takes, is
// told, and all else is there. It is so too where KVM hangs, which is given up.
func TestWhatCannotBeWritten(t *testing.T) {
	f := treetest.NewFake()
	bad := &disk.Error{Layer: "fake", Structure: "content", Offset: -1, Err: disk.ErrCorrupt}
	f.File(treetest.Root, "good", 10, treetest.Content{Data: []byte("good")})
	f.File(treetest.Root, strings.Repeat("n", 5000), 12, treetest.Content{Data: []byte("long")})
	f.File(treetest.Root, "half", 11, treetest.Content{Data: make([]byte, 3<<20), BadFrom: 2 << 20, Err: bad})
	for i, name := range []string{"..", ".", "", "../etc", "a/b", "a\x00b"} {
		f.File(treetest.Root, name, uint64(20+i), treetest.Content{Data: []byte("evil")})
	}
	f.Dir(treetest.Root, "loop", 30)
	f.Dir(30, "again", 30)
	f.Symlink(treetest.Root, "outside", 31, "/etc")
	f.Dir(treetest.Root, "outside-too", 32)
	long := strings.Repeat("l", 300)
	f.Dir(32, long, 33)
	f.File(33, "lost", 34, treetest.Content{Data: []byte("lost")})
	f.Symlink(32, "far", 35, strings.Repeat("t", 5000))
	f.Add(32, "what", 36, 0o110644)
	f.Attrs[10] = []disk.Xattr{{Name: []byte("nonsense"), Value: []byte("x")}, {Name: []byte("user.good"), Value: []byte("x")}}
	var damaged, warned []string
	o, check := options(t), hangingKVM(t)
	o.Accelerator = ""
	o.Damaged = func(path []byte, _ uint64, _ error) { damaged = append(damaged, string(path)) }
	o.Warn = func(path []byte, text string) { warned = append(warned, string(path)+": "+text) }
	path := makeImage(t, "xfs", imageSize)
	if err := writervm.Write(t.Context(), path, "xfs", f, o); err != nil {
		t.Fatal(err)
	}
	check()
	slices.Sort(damaged)
	if want := []string{"/", "/.", "/..", "/../etc", "/a\x00b", "/a/b", "/half", "/loop/again", "/" + strings.Repeat("n", 5000), "/outside-too/what"}; !slices.Equal(damaged, want) {
		t.Errorf("damaged %q, want %q", damaged, want)
	}
	want := []string{
		`/good: attribute "nonsense": operation not supported`,
		"/outside-too/far: make a symlink: file name too long",
		"/outside-too/" + long + ": make a folder: file name too long",
	}
	if !slices.Equal(warned, want) {
		t.Errorf("warnings %q, want %q", warned, want)
	}
	var names []string
	for _, line := range treetest.List(t, mounted(t, path)) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	if want := []string{`"good"`, `"loop"`, `"outside"`, `"outside-too"`}; !slices.Equal(names, want) {
		t.Errorf("there are %q, want %q", names, want)
	}
}
