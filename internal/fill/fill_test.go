package fill_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/fill"
	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/qemuimg"
)

// content is a disk in memory.
type content struct{ *bytes.Reader }

func (c content) Extents(off, length int64, yield func(disk.Extent) error) error {
	return yield(disk.Extent{Offset: off, Length: length})
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func newDisk(t *testing.T) (fill.Files, fill.Disk, []byte) {
	t.Helper()
	dir := t.TempDir()
	data := bytes.Repeat([]byte("what the backup has. "), 100000)
	data = data[:len(data)/512*512]
	path := filepath.Join(dir, "data.qcow2")
	return fill.Files{Socket: filepath.Join(dir, "s.sock"), Tool: qemuimg.New(qemuimg.Options{})},
		fill.Disk{Name: "data", Path: path, Kept: path + ".before", Content: content{bytes.NewReader(data)}}, data
}

// TestPut: a disk is put once, whatever happened before, and what was there is kept.
func TestPut(t *testing.T) {
	f, d, data := newDisk(t)
	old := []byte("no qcow2 at all")
	if err := os.WriteFile(d.Path, old, 0o640); err != nil {
		t.Fatal(err)
	}
	// A process that died has made the new image, and a name for the old one.
	if err := os.WriteFile(d.Path+fill.Ending, []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(d.Path, d.Kept); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Put(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if waits, err := f.Waits(d); !waits || err != nil {
			t.Errorf("%v, %v", waits, err)
		}
		if kept, err := os.ReadFile(d.Kept); err != nil || !bytes.Equal(kept, old) {
			t.Errorf("%q, %v", kept, err)
		}
	}
	if info, err := os.Stat(d.Path); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	s, err := f.Listen([]fill.Disk{d}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	raw := filepath.Join(t.TempDir(), "raw")
	tool(t, "qemu-img", "convert", "-O", "raw", d.Path, raw)
	if got, err := os.ReadFile(raw); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := f.Filled(d); err == nil {
		t.Error("it is not filled in, and nobody says so")
	}
	tool(t, "qemu-img", "rebase", "-f", "qcow2", "-b", "", d.Path) // as QEMU's block-stream does
	if waits, err := f.Waits(d); waits || err != nil {
		t.Errorf("filled in: %v, %v", waits, err)
	}
	if err := f.Filled(d); err != nil {
		t.Errorf("filled in: %v", err)
	}
}

// TestPutRefuses: an image that is in use stays, and so does what has the name that the
// old one shall have.
func TestPutRefuses(t *testing.T) {
	f, d, _ := newDisk(t)
	for _, path := range []string{d.Path, d.Kept} {
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Put(t.Context(), d); !errors.Is(err, fs.ErrExist) {
		t.Errorf("another file has the name: %v", err)
	}
	if err := os.Remove(d.Kept); err != nil {
		t.Fatal(err)
	}
	in, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := imagelock.Acquire(in, imagelock.Exclusive); err != nil {
		t.Fatal(err)
	}
	if err := f.Put(t.Context(), d); !errors.Is(err, imagelock.ErrInUse) {
		t.Errorf("in use: %v", err)
	}
	if _, err := os.Lstat(d.Path + fill.Ending); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the new image is left: %v", err)
	}
	if data, err := os.ReadFile(d.Path); err != nil || string(data) != d.Path {
		t.Errorf("%q, %v", data, err)
	}
}

// TestUser: an image that takes nobody's place has the owner that it should have, and
// who runs QEMU reaches the server, which nobody else does.
func TestUser(t *testing.T) {
	f, d, data := newDisk(t)
	const uid, other = 65534, 65533
	top := filepath.Dir(f.Socket)
	open := func(dir string) {
		for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o711); err != nil {
				t.Fatal(err)
			}
		}
	}
	open(top)
	closed := filepath.Join(top, "closed")
	f.UID, f.Socket = uid, filepath.Join(closed, "run", "from-backup", "s.sock")
	d.Owner = &fill.Owner{UID: uid, GID: -1, Mode: 0o640}
	if err := f.Put(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if got := tool(t, "stat", "-c", "%u %g %a", d.Path); got != "65534 0 640\n" {
		t.Errorf("the image is %s", got)
	}
	if _, err := f.Listen(nil, func(err error) { t.Error(err) }); err == nil || !strings.Contains(err.Error(), closed+" is closed to others") {
		t.Errorf("a folder on the way: %v", err)
	}
	open(closed)
	s, err := f.Listen([]fill.Disk{d}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	read := func(uid uint32) ([]byte, error) {
		c := exec.CommandContext(t.Context(), "nbdcopy", "nbd+unix:///data?socket="+f.Socket, "-")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return c.Output()
	}
	if got, err := read(uid); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := read(other); err == nil {
		t.Error("another user reads the backup")
	}
}
