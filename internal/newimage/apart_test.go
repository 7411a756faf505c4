package newimage

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/testmount"
)

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestBtrfsOfADiskThatIsThere: a UUID comes back also where the host sees the disk that
// has it, as a device or as a file that somebody has shown to libblkid.
func TestBtrfsOfADiskThatIsThere(t *testing.T) {
	const size = 120 << 20
	dir := t.TempDir()
	empty := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		return path
	}
	device, file := empty("device"), empty("file")
	uuid := [16]byte{0xd4, 1, 0x7a, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, byte(os.Getpid())}
	m := &maker{ctx: t.Context(), opts: Options{UUID: uuid, Label: []byte("data")}, work: &workplace{image: device}}
	if err := m.makeBtrfs(); err != nil {
		t.Fatal(err)
	}
	tool(t, "cp", device, file)
	testmount.Loop(t, device, 0, 0)
	tool(t, "blkid", file)
	m.work.image = empty("new")
	if err := m.makeBtrfs(); err != nil {
		t.Fatal(err)
	}
	if got := tool(t, "blkid", "-p", "-o", "value", "-s", "UUID", "-s", "LABEL", m.work.image); got != "data\n"+uuidText(uuid) && got != uuidText(uuid)+"\ndata" {
		t.Errorf("%q", got)
	}
	if _, err := os.Stat("/dev/null"); err != nil {
		t.Errorf("of this process the devices are gone too: %v", err)
	}
}

// TestApartKeepsNoMount: what is unmounted on the host while a program runs apart is
// unmounted there, too.
func TestApartKeepsNoMount(t *testing.T) {
	dir := testmount.Memory(t, "1m")
	tool(t, "mount", "--make-shared", dir) // as all mounts are on a host with systemd
	there, gone := filepath.Join(dir, "there"), filepath.Join(dir, "gone")
	for _, path := range []string{there, gone} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	unmount := testmount.At(t, "tmpfs", gone, "-t", "tmpfs")
	m := &maker{ctx: t.Context(), work: &workplace{image: filepath.Join(t.TempDir(), "image")}}
	ended := make(chan error)
	go func() {
		ended <- m.apart("sh", "-c", `mountpoint -q "$1" && echo > "$2/begun" && while mountpoint -q "$1"; do sleep 0.05; done`, "sh", gone, there)
	}()
	begun := filepath.Join(there, "begun")
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(begun); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the program did not begin")
		}
	}
	unmount()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it is mounted there still")
	}
}
