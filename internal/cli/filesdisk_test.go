package cli

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// holey makes a file whose pieces lie so scattered that ext4 needs a tree for them.
func holey(t *testing.T, path string, pieces int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	noise := rand.NewChaCha8([32]byte{7})
	piece := make([]byte, 9000)
	for i := range pieces {
		_, _ = noise.Read(piece) // has no error
		if _, err := f.WriteAt(piece, int64(i)*40000+100); err != nil {
			t.Fatal(err)
		}
	}
}

// raw stores the disk of a target in a file.
func (w *world) raw(target string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	var errs bytes.Buffer
	if code := Main([]string{"-c", w.config, "cat", "--raw", target}, os.Stdin, f, &errs); code != 0 || errs.Len() > 0 {
		w.t.Fatalf("cat --raw %s: exit code %d, %s", target, code, errs.String())
	}
	return path
}

// TestADiskOfFiles: a disk of which the backup has the files is a disk, as e2fsck, the
// kernel and drydock's own reader see it.
func TestADiskOfFiles(t *testing.T) {
	w := newWorld(t)
	root, data := w.twoDisks()
	tree := treetest.Make(t, treetest.Without{})
	holey(t, filepath.Join(tree, "scattered"), 700)
	for i := range 3000 { // a folder with an index
		write(t, filepath.Join(tree, "many", fmt.Sprintf("a file with a long name, number %d", i)), strings.Repeat("x", i))
	}
	w.tool("", "mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, "-L", "data disk", data, "128M")
	w.debugfs(data, "sif / mode 040750", "sif / uid 70000")
	w.backupDisks()

	made := w.raw("web/data@latest")
	w.tool("", "e2fsck", "-f", "-n", made)
	if out, _ := w.run(0, "diff", "--content", "--folder-times", data, made); out != "no differences\n" {
		t.Errorf("%s", out)
	}
	same := w.tool("", "blkid", "-o", "value", "-s", "UUID", "-s", "LABEL", data)
	if got := w.tool("", "blkid", "-o", "value", "-s", "UUID", "-s", "LABEL", made); got != same {
		t.Errorf("%q, want %q", got, same)
	}
	// The kernel's word on content, and on what it can still write.
	dir, _ := testmount.Image(t, made, "")
	w.tool("", "cp", filepath.Join(dir, "scattered"), filepath.Join(dir, "copied"))
	for _, name := range []string{"scattered", "copied"} {
		w.tool("", "cmp", filepath.Join(tree, "scattered"), filepath.Join(dir, name))
	}
	rest := w.raw("web/root@latest")
	if out, _ := w.run(0, "diff", "--content", root, rest); !strings.Contains(out, "changed: 0 files of 0 B") || !strings.HasPrefix(out, "U /var  ") {
		t.Errorf("root: %s", out)
	}
	if left, err := os.ReadDir(filepath.Join(filepath.Dir(w.config), "state", "work")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestADiskOfDamagedFiles: what cannot be read is an error where it is, and the rest of
// the disk is there.
func TestADiskOfDamagedFiles(t *testing.T) {
	w := newWorld(t)
	_, data := w.twoDisks()
	w.backupDisks()
	before := w.packs()
	noise := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // has no error
	bad := filepath.Join(t.TempDir(), "bad")
	write(t, bad, string(noise))
	w.debugfs(data, "write "+bad+" bad")
	w.backupDisks()
	spoiled := 0
	for path, there := range w.packs() {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if !there || before[path] || st.Size() < int64(len(noise)) {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("spoiled"), st.Size()/2); err != nil {
			t.Fatal(err)
		}
		f.Close()
		spoiled++
	}
	if spoiled != 1 {
		t.Fatalf("%d packs were spoiled", spoiled)
	}
	var errs bytes.Buffer
	if code := Main([]string{"-c", w.config, "cat", "--raw", "web/data@latest"}, os.Stdin, io.Discard, &errs); code != 1 || !strings.Contains(errs.String(), `content of "bad"`) {
		t.Errorf("exit code %d, %s", code, errs.String())
	}
}
