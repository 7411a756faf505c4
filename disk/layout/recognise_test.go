package layout_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/internal/testlvm"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// readImage reads the layout of one image.
func readImage(t testing.TB, path string) *layout.Layout {
	t.Helper()
	l, err := layout.Read([]layout.Disk{{Name: "vda", Content: disktest.OpenImage(t, path)}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// blkid returns what blkid(8) says of an image, nil where it says nothing, and
// whether it finds it ambiguous.
func blkid(t testing.TB, path string) (said map[string]string, ambiguous bool) {
	t.Helper()
	out, err := exec.Command("blkid", "-p", "-o", "export", path).Output()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == 8:
		return nil, true
	case errors.As(err, &exit) && exit.ExitCode() == 2:
		return nil, false
	case err != nil:
		t.Fatalf("blkid %s: %v", path, err)
	}
	said = make(map[string]string)
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		said[name] = strings.ReplaceAll(value, `\ `, " ")
	}
	return said, false
}

// makers make images of one kind each, by the tools of that kind.
var makers = map[string]struct {
	size     int64
	mkfs     []string
	readable bool
}{
	"ext4":      {64 << 20, []string{"mkfs.ext4", "-q", "-L", "a label"}, true},
	"ext3":      {64 << 20, []string{"mkfs.ext3", "-q", "-L", "ext3"}, true},
	"ext2":      {8 << 20, []string{"mkfs.ext2", "-q"}, true},
	"jbd":       {16 << 20, []string{"mke2fs", "-q", "-O", "journal_dev"}, false},
	"xfs":       {320 << 20, []string{"mkfs.xfs", "-q", "-L", "xlabel"}, true},
	"btrfs":     {128 << 20, []string{"mkfs.btrfs", "-q", "-L", "b label"}, true},
	"fat12":     {2 << 20, []string{"mkfs.fat", "-F", "12", "-n", "TWELVE"}, true},
	"fat16":     {32 << 20, []string{"mkfs.fat", "-F", "16"}, true},
	"fat32":     {64 << 20, []string{"mkfs.fat", "-F", "32", "-n", "EFI SYS"}, true},
	"swap":      {8 << 20, []string{"mkswap", "-q", "-L", "swapped"}, false},
	"swap 64k":  {8 << 20, []string{"mkswap", "-q", "-p", "65536"}, false},
	"luks1":     {16 << 20, []string{"sh", "-c", `echo -n key | cryptsetup -q luksFormat --type luks1 --pbkdf-force-iterations 1000 "$1" -`, "sh"}, false},
	"luks2":     {32 << 20, []string{"sh", "-c", `echo -n key | cryptsetup -q luksFormat --type luks2 --label crypt --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$1" -`, "sh"}, false},
	"bcache":    {16 << 20, []string{"make-bcache", "-B"}, false},
	"ntfs":      {16 << 20, []string{"mkfs.ntfs", "-q", "-F", "-f"}, false},
	"exfat":     {16 << 20, []string{"mkfs.exfat"}, false},
	"f2fs":      {64 << 20, []string{"mkfs.f2fs", "-q", "-f", "-l", "flash"}, false},
	"iso9660":   {0, []string{"sh", "-c", `mkdir -p "$1.d" && genisoimage -quiet -V "MY DISC" -o "$1" "$1.d"`, "sh"}, true},
	"squashfs":  {0, []string{"sh", "-c", `mkdir -p "$1.d" && mksquashfs "$1.d" "$1" -noappend -quiet -no-progress`, "sh"}, false},
	"erofs":     {0, []string{"sh", "-c", `mkdir -p "$1.d" && mkfs.erofs --quiet "$1" "$1.d"`, "sh"}, false},
	"lvm":       {16 << 20, []string{"sh", "-c", "true", "sh"}, false}, // see TestBlkid
	"empty":     {1 << 20, []string{"true"}, false},
	"small":     {512, []string{"true"}, false},
	"very tiny": {1, []string{"true"}, false},
}

func makeContent(t testing.TB, name string) string {
	t.Helper()
	m := makers[name]
	path := disktest.MakeImage(t, m.size, m.mkfs[0], m.mkfs[1:]...)
	if name == "lvm" {
		device := testmount.Loop(t, path, 0, 0)
		testlvm.New(t, device).Run("pvcreate", device)
		testmount.Detach(t, device)
	}
	return path
}

// TestBlkid compares what is recognised of one content on a whole disk with
// blkid.
func TestBlkid(t *testing.T) {
	for name, m := range makers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := makeContent(t, name)
			l := readImage(t, path)
			compareBlkid(t, path, l.Volumes()[0])
			v := l.Volumes()[0]
			fs, err := l.Open(0)
			if v.Readable != m.readable || (err == nil) != m.readable || m.readable && (v.Err != nil || fs == nil || len(l.Devices(0)) != 1) {
				t.Errorf("%+v opens with %v", v, err)
			}
			if v.Title == "" {
				t.Errorf("%+v has no title", v)
			}
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		})
	}
}

func compareBlkid(t *testing.T, path string, v layout.Volume) {
	t.Helper()
	want, ambiguous := blkid(t, path)
	if ambiguous {
		if !errors.Is(v.Err, disk.ErrUnsupported) || v.Content != "" {
			t.Errorf("%+v, but blkid finds it ambiguous", v)
		}
		return
	}
	kind := want["TYPE"]
	switch {
	case kind == "jbd": // refused by its reader
		kind, want["UUID"] = "ext4", want["LOGUUID"]
	case kind == "ntfs":
		want["LABEL"] = string(v.Label) // in a file
	case kind == "ext2" && v.Err != nil:
		kind = "ext4"
	}
	table := ""
	if kind == "" {
		table = strings.ReplaceAll(want["PTTYPE"], "dos", "mbr")
	}
	if v.Content != kind || string(v.Label) != want["LABEL"] || v.UUID != want["UUID"] || v.Table != table {
		t.Errorf("%+v, but blkid has %v", v, want)
	}
}

// TestLeftovers makes one content over another without wiping it, and has blkid
// judge what is there.
func TestLeftovers(t *testing.T) {
	ambiguous := 0
	made := make(map[string]string)
	content := func(name string) string {
		if made[name] == "" {
			made[name] = makeContent(t, name)
		}
		return made[name]
	}
	for _, first := range []string{"ext4", "xfs", "btrfs", "fat32", "swap", "luks2", "iso9660", "f2fs"} {
		for _, second := range []string{"ext2", "xfs", "btrfs", "fat16", "swap", "luks1", "erofs", "squashfs"} {
			t.Run(first+" under "+second, func(t *testing.T) {
				below, above := content(first), content(second)
				// What the second wrote, over the first: its blocks that are not zero.
				path := filepath.Join(t.TempDir(), "both.img")
				disktest.Run(t, "cp", "--sparse=always", below, path)
				overlay(t, path, above)
				if err := os.Truncate(path, max(makers[first].size, makers[second].size)); err != nil {
					t.Fatal(err)
				}
				_, both := blkid(t, path)
				if both {
					ambiguous++
				}
				compareBlkid(t, path, readImage(t, path).Volumes()[0])
			})
		}
	}
	if ambiguous == 0 {
		t.Error("nothing was ambiguous")
	}
}

// overlay writes the sectors of one image that are not zero into another.
func overlay(t *testing.T, path, above string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	from, size := disktest.OpenFile(t, above)
	buf := make([]byte, 512)
	for off := int64(0); off < min(size, 512<<10); off += 512 {
		n, err := from.ReadAt(buf, off)
		if err != nil && n == 0 {
			t.Fatal(err)
		}
		if strings.Trim(string(buf[:n]), "\x00") == "" {
			continue
		}
		if _, err := f.WriteAt(buf[:n], off); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReformatted makes one filesystem over another with the tools' own care for
// what was there: it is the last that counts, unless blkid finds both.
func TestReformatted(t *testing.T) {
	force := map[string][]string{"ext4": {"-F"}, "xfs": {"-f"}, "btrfs": {"-f"}, "fat32": nil, "swap": {"-f"}, "luks1": nil}
	for first := range force {
		for second := range force {
			t.Run(first+" then "+second, func(t *testing.T) {
				path := disktest.EmptyImage(t, 320<<20)
				for _, name := range []string{first, second} {
					mkfs := makers[name].mkfs
					disktest.Run(t, mkfs[0], slices.Concat(mkfs[1:], force[name], []string{path})...)
				}
				l := readImage(t, path)
				v := l.Volumes()[0]
				compareBlkid(t, path, v)
				if v.Content != "" && v.Readable != makers[second].readable {
					t.Errorf("%+v", v)
				}
				if v.Content == "" {
					t.Logf("ambiguous: %v", v.Err)
				}
				if err := os.Remove(path); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
