package fat_test

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/fat"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// The tests of this file compare with mtools, mkfs.fat and fsck.fat, and blkid:
// the kernel of these machines has no FAT.

var profiles = []struct {
	name    string
	size    int64
	cluster int
	bits    int // as blkid prints it; 0 where it is mistaken
	mkfs    []string
}{
	{"floppy", 1440 << 10, 512, 12, []string{"-F", "12"}},
	{"fat12-large", 120 << 20, 64 << 10, 12, []string{"-F", "12", "-s", "128"}},
	{"fat12-most", (1 + 2*12 + 32 + 4084) * 512, 512, 0, []string{"-F", "12", "-s", "1", "-a"}},
	{"fat16-least", (1 + 2*16 + 32 + 4087) * 512, 512, 16, []string{"-F", "16", "-s", "1", "-a"}},
	{"fat16", 64 << 20, 2048, 16, []string{"-F", "16"}},
	{"fat16-one-table", 64 << 20, 4096, 16, []string{"-F", "16", "-s", "8", "-f", "1", "-r", "1024", "-n", "A LABEL"}},
	{"fat16-4k", 64 << 20, 4096, 16, []string{"-F", "16", "-S", "4096", "-s", "1"}},
	{"fat32", 64 << 20, 512, 32, []string{"-F", "32"}},
	{"fat32-esp", 600 << 20, 4096, 32, []string{"-F", "32", "-n", "ESP", "-i", "00C0FFEE"}},
	{"fat32-4k", 512 << 20, 4096, 32, []string{"-F", "32", "-S", "4096", "-s", "1", "-f", "1", "-R", "64", "-n", "FOUR K"}},
	{"fat32-64k", 5 << 30, 64 << 10, 32, []string{"-F", "32", "-s", "128"}},
}

// TestReference writes a tree with mtools, some of it in pieces, and compares all
// that we read with what was written and with what the tools see.
func TestReference(t *testing.T) {
	for _, p := range profiles {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			image := makeImage(t, p.size, p.mkfs...)
			s := everything(p.cluster)
			s.put(t, image)
			if p.size > 4<<20 {
				s.putInPieces(t, image, p.cluster)
			}
			fs := openFilesystem(t, disktest.OpenImage(t, image))
			if got := fs.Info(); got.BlockSize != int64(p.cluster) || len(got.Remarks) != 0 {
				t.Errorf("%+v", got)
			}
			compareSource(t, s, fs)
			compareClusters(t, image, fs)
			compareFsck(t, image, fs)
			compareBlkid(t, image, fs, p.bits)
		})
	}
}

// putInPieces leaves gaps on an image, and fills them with one file.
func (s source) putInPieces(t *testing.T, image string, clusterSize int) {
	gaps, names := make(source), []string{}
	for i := range 40 {
		name := fmt.Sprintf("gap-%d", i)
		gaps[name] = bytes.Repeat([]byte{'g'}, clusterSize*(1+i%3))
		if i%2 == 0 {
			names = append(names, "::/"+name)
		} else {
			s[name] = gaps[name]
		}
	}
	gaps.put(t, image)
	mtools(t, image, "mdel", names...)
	more := source{"pieces": large(clusterSize*60 + 5)}
	if clusterSize <= 4096 {
		more["long"] = large(clusterSize*600 + 77)
	}
	more.put(t, image)
	for name, content := range more {
		s[name] = content
	}
}

// compareSource compares a filesystem with the tree that was written to it.
func compareSource(t *testing.T, want source, fs *fat.Filesystem) {
	t.Helper()
	left := make(map[string]bool)
	for name := range want {
		for at := name; at != "."; at = dirOf(at) {
			left[at] = true
		}
	}
	all := disktest.ReadTree(t, fs)
	for path, n := range all {
		path = strings.TrimPrefix(path, "/")
		if path != "" && !left[path] {
			t.Errorf("%q was not written", path)
		}
		delete(left, path)
		content, written := want[path]
		if !written || content == nil {
			if n.Mode != disk.ModeDir|0o755 {
				t.Errorf("%q: mode %o", path, n.Mode)
			}
			continue
		}
		if n.Mode != disk.ModeRegular|0o644 || n.Size != int64(len(content)) || n.Links != 1 {
			t.Errorf("%q: %+v", path, n)
		}
		if when := fmt.Sprintf(" %d.000000000 ", modified(len(content)).Unix()); !strings.Contains(n.Times, when) {
			t.Errorf("%q: times %s, want %s", path, n.Times, when)
		}
		if got := readAll(t, fs, n.Ino); !bytes.Equal(got, content) {
			t.Errorf("%q: other content", path)
		}
	}
	for path := range left {
		t.Errorf("%q is missing", path)
	}
}

func dirOf(path string) string {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i]
	}
	return "."
}

var showFAT = regexp.MustCompile(`<(\d+)(?:-(\d+))?>`)

// compareClusters compares where the content of files lies with what mshowfat
// says, and what lies there with what reading gives.
func compareClusters(t *testing.T, image string, fs *fat.Filesystem) {
	t.Helper()
	m := disktest.OpenImage(t, image)
	data := firstCluster(t, image)
	pieces := 0
	for path, n := range disktest.ReadTree(t, fs) {
		if !disktest.IsType(n.Mode, disk.ModeRegular) || n.Size == 0 || strings.HasPrefix(path, "/many/") || strings.Contains(path, "[") {
			continue
		}
		f, err := fs.Open(n.Ino)
		if err != nil {
			t.Fatal(err)
		}
		var got, want []int64 // of each cluster, its place on the disk
		cluster := fs.Info().BlockSize
		content := readAll(t, fs, n.Ino)
		err = f.(disk.Locator).Locate(0, n.Size, func(l disk.Location) error {
			pieces++
			for i := int64(0); i < l.Length; i += cluster {
				got = append(got, l.At+i)
			}
			b := make([]byte, l.Length)
			if _, err := m.ReadAt(b, l.At); err != nil || !bytes.Equal(b, content[l.Offset:][:l.Length]) || l.Device != 0 {
				t.Errorf("%q: %+v holds something else: %v", path, l, err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range showFAT.FindAllStringSubmatch(string(mtools(t, image, "mshowfat", "::"+path)), -1) {
			first, _ := strconv.ParseInt(r[1], 10, 64)
			last := first
			if r[2] != "" {
				last, _ = strconv.ParseInt(r[2], 10, 64)
			}
			for c := first; c <= last; c++ {
				want = append(want, data+(c-2)*cluster)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q lies at %v, mshowfat says %v", path, got, want)
		}
	}
	t.Logf("%d pieces", pieces)
}

var dataArea = regexp.MustCompile(`Data area starts at byte (\d+)`)

func firstCluster(t *testing.T, image string) int64 {
	t.Helper()
	found := dataArea.FindSubmatch(disktest.Run(t, "fsck.fat", "-n", "-v", image))
	if found == nil {
		t.Fatal("fsck.fat does not say where the data starts")
	}
	n, _ := strconv.ParseInt(string(found[1]), 10, 64)
	return n
}

var fsckSummary = regexp.MustCompile(`(\d+) files, (\d+)/(\d+) clusters`)

// compareFsck compares how many files and clusters there are, and how many are
// used.
func compareFsck(t *testing.T, image string, fs *fat.Filesystem) {
	t.Helper()
	found := fsckSummary.FindSubmatch(disktest.Run(t, "fsck.fat", "-n", "-v", image))
	if found == nil {
		t.Fatal("fsck.fat gives no summary")
	}
	files := len(disktest.ReadTree(t, fs))
	if len(fs.Info().Label) == 0 {
		files-- // fsck.fat counts a label, and not the root
	}
	data := firstCluster(t, image)
	used, next := int64(0), int64(0)
	err := fs.Used(0, func(off, length int64) error {
		if off == 0 && length < data || off < next || length <= 0 {
			t.Errorf("%d bytes from %d, where %d is next", length, off, next)
		}
		next = off + length + 1
		used += length
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(files, (used-data)/fs.Info().BlockSize)
	if want := fmt.Sprintf("%s %s", found[1], found[2]); got != want {
		t.Errorf("%s files and clusters, fsck.fat says %s", got, want)
	}
	if err := fs.Used(1, func(int64, int64) error { return nil }); err == nil {
		t.Error("there is no device 1")
	}
}

func compareBlkid(t *testing.T, image string, fs *fat.Filesystem, bits int) {
	t.Helper()
	out := disktest.Run(t, "blkid", "-p", "-o", "export", image)
	info := fs.Info()
	want := []string{
		fmt.Sprintf("UUID=%X-%X", info.UUID[:2], info.UUID[2:4]),
		"TYPE=" + info.Type,
	}
	if bits != 0 {
		want = append(want, fmt.Sprintf("VERSION=FAT%d", bits))
	}
	if len(info.Label) > 0 {
		want = append(want, "LABEL=")
	} else if bytes.Contains(out, []byte("\nLABEL=")) {
		t.Errorf("no label; blkid has\n%s", out)
	}
	for _, line := range want {
		if !bytes.Contains(out, []byte("\n"+line)) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
	label := disktest.Run(t, "blkid", "-p", "-o", "value", "-s", "LABEL", image)
	if got := bytes.TrimRight(label, "\n"); !bytes.Equal(got, info.Label) && !bytes.Contains(got, []byte(`\`)) {
		t.Errorf("the label is %q, blkid says %q", info.Label, got)
	}
	if known, err := fat.Recognise(disktest.OpenImage(t, image)); !known || err != nil {
		t.Errorf("not recognised: %v", err)
	}
}

// TestEntryInTwoPages: the entry of cluster 2389 of a floppy disk starts in the
// last byte of a page.
func TestEntryInTwoPages(t *testing.T) {
	image := makeImage(t, 1440<<10, "-F", "12")
	s := source{"almost all": large(2800 * 512)}
	s.put(t, image)
	fs := openFilesystem(t, disktest.OpenImage(t, image))
	compareSource(t, s, fs)
	compareClusters(t, image, fs)
	compareFsck(t, image, fs)
}
