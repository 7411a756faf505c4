package newimage

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
)

// readExt4 opens an ext4.
func readExt4(_ context.Context, image *os.File) (disk.Filesystem, func(), error) {
	info, err := image.Stat()
	if err != nil {
		return nil, nil, err
	}
	d, err := raw.Open(image, info.Size())
	if err != nil {
		return nil, nil, err
	}
	fsys, err := ext4.Open(d, ext4.Options{})
	return fsys, func() {}, err
}

// backupWithDamage is a backup in which a file can be read and others cannot, the one in
// a folder among them.
func backupWithDamage(t *testing.T, unreadable ...uint64) *treetest.Fake {
	t.Helper()
	f := treetest.NewFake()
	content := treetest.Content{Data: make([]byte, 5000)}
	f.File(treetest.Root, "good", 10, content)
	f.File(treetest.Root, "bad", 11, content)
	f.File(treetest.Root, "late", 12, content)
	f.File(f.Dir(treetest.Root, "folder", 20), "in it", 21, content)
	for dir, list := range f.Entries {
		for i := range list {
			inode := f.Inodes[list[i].Ino]
			f.Entries[dir][i].Type = inode.Type()
		}
	}
	for _, ino := range unreadable {
		f.Fails[ino] = &disk.Error{Layer: "fake", Structure: "inode", Offset: -1, Err: disk.ErrCorrupt}
	}
	return f
}

// TestWhatIsLostMeanwhile: what cannot be read any more when a skeleton is opened again has
// its places, which are nobody's zeros; what can be read only now keeps it from nothing.
func TestWhatIsLostMeanwhile(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept")
	var damaged []string
	opts := Options{
		Filesystem: "ext4", Size: 16 << 20, Keep: kept, Read: readExt4,
		Damaged: func(path []byte, _ error) { damaged = append(damaged, string(path)) },
	}
	made, err := MakeSkeleton(t.Context(), backupWithDamage(t, 12), filepath.Join(dir, "work"), opts)
	if err != nil {
		t.Fatal(err)
	}
	made.File.Close()
	if len(made.Runs) != 3 || !slices.Equal(damaged, []string{"/late"}) {
		t.Errorf("runs %+v, damaged %q", made.Runs, damaged)
	}
	for _, c := range []struct{ lost, want []uint64 }{
		{[]uint64{12}, []uint64{10, 11, 21}},
		{nil, []uint64{10, 11, 21}},
		{[]uint64{11, 20}, []uint64{0, 0, 10}},
	} {
		s, err := OpenSkeleton(t.Context(), backupWithDamage(t, c.lost...), kept, opts)
		if err != nil {
			t.Fatalf("lost %d: %v", c.lost, err)
		}
		s.File.Close()
		var got []uint64
		for i, r := range s.Runs {
			got = append(got, r.Ino)
			if was := made.Runs[i]; r.Offset != was.Offset || r.Length != was.Length || r.At != was.At {
				t.Errorf("lost %d: %+v, was %+v", c.lost, r, was)
			}
		}
		if slices.Sort(got); !slices.Equal(got, c.want) {
			t.Errorf("lost %d: places of %d, want %d", c.lost, got, c.want)
		}
	}
}

// TestGrown: a filesystem into which the files do not fit is made larger, is that large when
// it is opened again, and what cannot be read is told once.
func TestGrown(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept")
	f := backupWithDamage(t, 12)
	f.File(treetest.Root, "large", 30, treetest.Content{Data: make([]byte, 12<<20)})
	f.Entries[treetest.Root][len(f.Entries[treetest.Root])-1].Type = disk.ModeRegular
	var damaged []string
	opts := Options{
		Filesystem: "ext4", Size: 4 << 20, Keep: kept, Grow: true, Read: readExt4,
		Damaged: func(path []byte, _ error) { damaged = append(damaged, string(path)) },
	}
	made, err := MakeSkeleton(t.Context(), f, filepath.Join(dir, "work"), opts)
	if err != nil {
		t.Fatal(err)
	}
	made.File.Close()
	if made.Size <= 12<<20 || made.Size%512 != 0 || !slices.Equal(damaged, []string{"/late"}) {
		t.Errorf("%d bytes, damaged %q", made.Size, damaged)
	}
	again, err := OpenSkeleton(t.Context(), f, kept, opts)
	if err != nil {
		t.Fatal(err)
	}
	again.File.Close()
	if again.Size != made.Size || !slices.Equal(again.Runs, made.Runs) {
		t.Errorf("%d bytes in %+v, made were %d in %+v", again.Size, again.Runs, made.Size, made.Runs)
	}
}
