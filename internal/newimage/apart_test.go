package newimage

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
