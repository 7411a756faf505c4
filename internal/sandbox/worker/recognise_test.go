package worker

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/raw"
)

const volumeSize = 320 << 20 // mkfs.xfs wants 300 MiB

// newVolume returns the path of an empty volume.
func newVolume(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "volume")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, volumeSize); err != nil {
		t.Fatal(err)
	}
	return path
}

func openVolume(t *testing.T, path string) disk.Sparse {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	v, err := raw.Open(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// What the tools make is recognised, with its label and UUID.
func TestRecogniseTools(t *testing.T) {
	const uuid = "01234567-89ab-cdef-0123-456789abcdef"
	for _, c := range []struct {
		kind, label string
		tool        []string
	}{
		{"ext4", "data", []string{"mke2fs", "-q", "-t", "ext4", "-L", "data", "-U", uuid}},
		{"ext3", "data", []string{"mke2fs", "-q", "-t", "ext3", "-L", "data", "-U", uuid}},
		{"ext2", "sixteen bytes of", []string{"mke2fs", "-q", "-t", "ext2", "-L", "sixteen bytes of", "-U", uuid}},
		{"xfs", "twelve bytes", []string{"mkfs.xfs", "-q", "-L", "twelve bytes", "-m", "uuid=" + uuid}},
		{"btrfs", "pool", []string{"mkfs.btrfs", "-q", "-L", "pool", "-U", uuid}},
		{"swap", "paging", []string{"mkswap", "-q", "-L", "paging", "-U", uuid}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			path := newVolume(t)
			if out, err := exec.Command(c.tool[0], append(c.tool[1:], path)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", c.tool, err, out)
			}
			got, err := recognise(openVolume(t, path))
			if err != nil || got.kind != c.kind || string(got.label) != c.label || string(got.uuid[:]) != "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef" {
				t.Errorf("got %q, label %q, UUID %x, %v", got.kind, got.label, got.uuid, err)
			}
			if want := strings.HasPrefix(c.kind, "ext"); got.readable() != want {
				t.Errorf("readable is %v", got.readable())
			}
			if got.readable() {
				return
			}
			_, err = openFilesystem(openVolume(t, path), 1)
			if e := new(disk.Error); !errors.Is(err, disk.ErrUnsupported) || !errors.As(err, &e) || !strings.Contains(e.Detail, got.title) || e.Hint == "" {
				t.Errorf("opening it gives %v", err)
			}
		})
	}
}

// Every signature is found where it is, and reads within the volume whatever
// its size.
func TestRecogniseSignatures(t *testing.T) {
	for _, s := range signatures {
		t.Run(s.kind, func(t *testing.T) {
			b := make([]byte, headSize)
			copy(b[s.off:], s.magic)
			got, err := recognise(memory(b))
			if want := s.kind; err != nil || (got.kind != want && (want != "ext4" || got.kind != "ext2")) {
				t.Errorf("got %q, %v", got.kind, err)
			}
			if got.title == "" || (!got.readable() && got.way == "") {
				t.Errorf("incomplete: %+v", got.signature)
			}
			for _, n := range []int64{s.off + int64(len(s.magic)), s.off + int64(len(s.magic)) - 1, s.off} {
				if _, err := recognise(memory(b[:n])); err != nil {
					t.Errorf("a volume of %d bytes: %v", n, err)
				}
			}
		})
	}
}

func TestRecogniseElsewhere(t *testing.T) {
	zfs := make([]byte, 512<<10)
	copy(zfs[128<<10+5<<10:], "\x0c\xb1\xba\x00\x00\x00\x00\x00")
	old := make([]byte, 300<<10)
	copy(old[192<<10:], "\xfc\x4e\x2b\xa9")
	end := make([]byte, 300<<10)
	copy(end[292<<10:], "\xfc\x4e\x2b\xa9")
	for name, c := range map[string]struct {
		volume []byte
		want   string
	}{
		"zfs":                   {zfs, "zfs_member"},
		"md 0.90":               {old, "linux_raid_member"},
		"md 1.0":                {end, "linux_raid_member"},
		"nothing":               {make([]byte, 1<<20), ""},
		"no byte":               {nil, ""},
		"one byte":              {[]byte{1}, ""},
		"a mirror with an ext4": {append([]byte(nil), withExt(end)...), "linux_raid_member"},
	} {
		got, err := recognise(memory(c.volume))
		if err != nil || got.kind != c.want {
			t.Errorf("%s: got %q, %v", name, got.kind, err)
		}
	}
	if _, err := openFilesystem(memory(make([]byte, 4096)), 0); !errors.Is(err, disk.ErrUnsupported) {
		t.Errorf("nothing is opened: %v", err)
	}
}

func withExt(b []byte) []byte {
	b = append([]byte(nil), b...)
	copy(b[1080:], "\x53\xef")
	return b
}

// memory is a [disk.Sparse] of bytes.
type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }

func (m memory) ReadAt(p []byte, off int64) (int, error) {
	return strings.NewReader(string(m)).ReadAt(p, off)
}

func (m memory) Extents(off, length int64, yield func(disk.Extent) error) error {
	return yield(disk.Extent{Offset: off, Length: length})
}
