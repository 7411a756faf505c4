package fat_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/fat"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// makeImage makes a sparse image of size bytes and a filesystem on it.
func makeImage(t testing.TB, size int64, mkfs ...string) string {
	t.Helper()
	return disktest.MakeImage(t, size, "mkfs.fat", mkfs...)
}

// open is [fat.Open] with the usual options.
func open(d disk.Sparse) (disk.Filesystem, error) { return fat.Open(d, fat.Options{}) }

func openFilesystem(t testing.TB, d disk.Sparse) *fat.Filesystem {
	t.Helper()
	fs, err := fat.Open(d, fat.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// mtools runs one of mtools on an image. They are told that names are UTF-8, and
// times in UTC.
func mtools(t testing.TB, image, tool string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(tool, append([]string{"-i", image}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TZ=UTC", "MTOOLSRC=/dev/null")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", tool, args, err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes()
}

// source is a tree that a test puts on an image: by path, content of files, and
// nil for directories.
type source map[string][]byte

// modified is the time of file number i of a source: an even second.
func modified(i int) time.Time {
	return time.Date(1980+i%127, time.Month(1+i%12), 1+i%28, i%24, i%60, i%30*2, 0, time.UTC)
}

// write makes the files of s in a folder of the host, with the times that
// [modified] gives for their sizes.
func (s source) write(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range s {
		at := path.Join(dir, name)
		if content == nil {
			if err := os.MkdirAll(at, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(path.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, content, 0o644); err != nil {
			t.Fatal(err)
		}
		when := modified(len(content))
		if err := os.Chtimes(at, when, when); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// put writes s to an image.
func (s source) put(t testing.TB, image string) {
	t.Helper()
	dir := s.write(t)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-s", "-m", "-Q"}
	for _, e := range list {
		args = append(args, path.Join(dir, e.Name()))
	}
	mtools(t, image, "mcopy", append(args, "::/")...)
}

// everything is a tree of all kinds of names and sizes for clusters of a size.
func everything(clusterSize int) source {
	s := source{
		"README.TXT": []byte("upper"), "names/lower.txt": []byte("lower"), "names/Mixed.Txt": []byte("mixed"),
		"names/lower.UP": []byte("lu"), "names/UPPER.low": []byte("ul"), "names/noext": []byte("n"), "names/two.dots.txt": []byte("d"),
		"names/with blank.a b": []byte("b"), "names/.hidden": []byte("h"), "names/größe ⚓ 漢字.txt": []byte("unicode"),
		"names/ÄÖÜ.TXT": []byte("code page"), "names/+,;=[].txt": []byte("characters that short names do not have"),
		"names/" + strings.Repeat("thirteen char", 3): []byte("parts without an end"),
		"names/" + strings.Repeat("ü", 127):           []byte("254 bytes"),
		"empty-dir":                                   nil,
		"a/b/c/d/e/f/deep":                            []byte("deep"),
	}
	if clusterSize > 512 { // mtools cannot let a directory grow by two clusters at once
		s["names/"+strings.Repeat("l", 255)] = []byte("the longest")
		s["names/"+strings.Repeat("m", 251)+".ext"] = []byte("the longest with an extension")
	}
	for i, size := range []int{0, 1, 511, 512, 513, clusterSize - 1, clusterSize, clusterSize + 1, 3 * clusterSize, 10*clusterSize + 7} {
		s[fmt.Sprintf("sizes/%02d", i)] = bytes.Repeat([]byte(fmt.Sprintf("%02d.", i)), size)[:size]
	}
	for i := range 300 { // a directory of many clusters
		s[fmt.Sprintf("many/a file with a long name, number %d", i)] = []byte(fmt.Sprint(i))
	}
	return s
}

// large is content that differs from cluster to cluster.
func large(size int) []byte {
	b := make([]byte, 0, size+16)
	for i := 0; len(b) < size; i++ {
		b = fmt.Appendf(b, "block %09d;", i)
	}
	return b[:size]
}

// readAll returns the content of a file.
func readAll(t testing.TB, fs disk.Filesystem, ino uint64) []byte {
	t.Helper()
	f, err := fs.Open(ino)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, f.Size())
	if n, err := f.ReadAt(b, 0); n != len(b) {
		t.Fatalf("inode %d: %d of %d bytes: %v", ino, n, len(b), err)
	}
	return b
}
