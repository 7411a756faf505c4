package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// TestLocate: a file tells where its bytes lie in the image, from any place on; what has
// checksums lies nowhere.
func TestLocate(t *testing.T) {
	tree := t.TempDir()
	for _, size := range []int{1, 4097, 100_000, 9<<20 + 123} {
		writeRandom(t, filepath.Join(tree, fmt.Sprint(size)), size)
	}
	image := filepath.Join(t.TempDir(), "ext4")
	run(t, "mke2fs", "-q", "-t", "ext4", "-d", tree, image, "32M")
	for _, c := range []struct {
		path  string
		there bool
	}{{image, true}, {makeBtrfs(t, tree), false}} {
		for _, name := range []string{"1", "4097", "100000", "9437307"} {
			t.Run(filepath.Base(c.path)+"/"+name, func(t *testing.T) {
				want, err := os.ReadFile(filepath.Join(tree, name))
				if err != nil {
					t.Fatal(err)
				}
				listed := openListed(t, openOnly(t, c.path, Raw), name)
				for _, f := range []disk.Sparse{listed, openUnlisted(t, c.path, name)} {
					for _, from := range []int64{0, 1, int64(len(want)) / 2, int64(len(want))} {
						if got := atPlaces(t, f, c.path, from, c.there); c.there && !bytes.Equal(got, want[from:]) {
							t.Errorf("%T: other bytes lie there, from %d on", f, from)
						}
					}
					if err := f.(disk.Locator).Locate(1, int64(len(want)), nil); !errors.Is(err, os.ErrInvalid) {
						t.Errorf("%T: beyond the end: %v", f, err)
					}
				}
			})
		}
	}
}

// openUnlisted opens a file of the root directory of which no listing has told.
func openUnlisted(t *testing.T, path, name string) disk.Sparse {
	t.Helper()
	ino, err := disk.Lookup(openOnly(t, path, Raw), []byte("/"+name))
	if err != nil {
		t.Fatal(err)
	}
	f, err := openOnly(t, path, Raw).Open(ino.Ino)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := f.(*file); !ok {
		t.Errorf("it is a %T", f)
	}
	return f
}

// atPlaces returns what lies at the places that a file tells from an offset on, which are
// some or none.
func atPlaces(t *testing.T, f disk.Sparse, image string, from int64, there bool) (got []byte) {
	t.Helper()
	file := openFile(t, image)
	next := from
	err := f.(disk.Locator).Locate(from, f.Size()-from, func(l disk.Location) error {
		if l.Offset != next || l.Length <= 0 || (l.Device == 0) != there {
			t.Errorf("%+v, want one from %d on", l, next)
		}
		next += l.Length
		p := make([]byte, l.Length)
		_, err := file.ReadAt(p, l.At)
		got = append(got, p...)
		return err
	})
	if err != nil || next != f.Size() {
		t.Errorf("places up to %d of %d: %v", next, f.Size(), err)
	}
	return got
}
