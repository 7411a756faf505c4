package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// openCompressed makes a tree of files of all sizes around those from which on content
// is read otherwise, on an ext4 in a qcow2 that is compressed, and opens it.
func openCompressed(t *testing.T) (tree string, opened disk.Filesystem) {
	t.Helper()
	tree = t.TempDir()
	rnd := rand.New(rand.NewPCG(1, 2))
	sizes := []int{1, 4096, smallSize - 1, smallSize, smallSize + 1, 2 * windowSize, 2*windowSize + 1, 5*windowSize - 1}
	for len(sizes) < 120 {
		sizes = append(sizes, 1+rnd.IntN(1<<(10+len(sizes)%11)))
	}
	for i, n := range rnd.Perm(len(sizes)) {
		data := make([]byte, sizes[n])
		for k := range data {
			data[k] = byte(rnd.IntN(5)) // it can be compressed
		}
		if err := os.WriteFile(filepath.Join(tree, fmt.Sprintf("file %03d", i)), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, image := filepath.Join(t.TempDir(), "raw"), filepath.Join(t.TempDir(), "image")
	run(t, "mke2fs", "-q", "-t", "ext4", "-d", tree, raw, "128M")
	run(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, image)
	opened, err := start(t, image, DiskSpec{Format: Qcow2}).Filesystem(t.Context(), "image")
	if err != nil {
		t.Fatal(err)
	}
	return tree, opened
}

// compareContents compares the files of a disk's root with those of the folder that they came
// from, and calls then after each.
func compareContents(t *testing.T, opened disk.Filesystem, tree string, o order, then func()) {
	t.Helper()
	err := o(opened, opened.Info().Root, func(e disk.DirEntry) error {
		if e.Type != disk.ModeRegular {
			return nil
		}
		want, err := os.ReadFile(filepath.Join(tree, string(e.Name)))
		if err != nil {
			return err
		}
		f, err := opened.Open(e.Ino)
		if err != nil {
			return err
		}
		if got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size())); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s of %d bytes: read %d others, %v", e.Name, len(want), len(got), err)
		}
		held, err := f.(*file).Bytes()
		if small := len(want) <= smallSize; err != nil || small && !bytes.Equal(held, want) || !small && held != nil {
			t.Errorf("%s of %d bytes: %d others are held, %v", e.Name, len(want), len(held), err)
		}
		then()
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestCompressedContent: what the worker alone can read is right in whatever order it is
// read, and for several readers at once.
func TestCompressedContent(t *testing.T) {
	tree, opened := openCompressed(t)
	for range 3 {
		for name, o := range map[string]order{"by name": byName, "as listed": asListed} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				compareContents(t, opened, tree, o, func() {})
			})
		}
	}
}

// TestBatchesAhead: a reader who goes on in order soon has as many batches of small files
// ahead as one can have, and never more.
func TestBatchesAhead(t *testing.T) {
	tree, opened := openCompressed(t)
	small, most := &opened.(*filesystem).small, 0
	compareContents(t, opened, tree, byName, func() {
		small.mu.Lock()
		defer small.mu.Unlock()
		most = max(most, small.unused(nil))
	})
	if most != maxBatchesAhead {
		t.Errorf("%d batches ahead, want %d", most, maxBatchesAhead)
	}
}

// Batches that were asked for in vain, before, keep none back that is due.
func TestWrongGuesses(t *testing.T) {
	tree, opened := openCompressed(t)
	small := &opened.(*filesystem).small
	// steady returns how many files are read before as many batches are ahead as can be.
	steady := func(wrong int) int {
		small.batches, small.expected = nil, predictor{}
		for range wrong {
			small.batches = append(small.batches, new(batch))
		}
		read, enough := 0, 0
		compareContents(t, opened, tree, byName, func() {
			small.mu.Lock()
			defer small.mu.Unlock()
			read++
			ahead := 0
			for _, b := range small.batches {
				if len(b.files) > 0 && !b.used {
					ahead++
				}
			}
			if ahead == maxBatchesAhead && enough == 0 {
				enough = read
			}
		})
		return enough
	}
	if want, got := steady(0), steady(maxBatchesAhead); want == 0 || got != want {
		t.Errorf("after wrong guesses enough is ahead when %d files have been read, otherwise after %d", got, want)
	}
}

// Once the worker is gone, each file is one clear error, and whoever asks waits for
// nothing.
func TestReadAfterDeath(t *testing.T) {
	tree, opened := openCompressed(t)
	var inos []uint64
	compareContents(t, opened, tree, disk.Filesystem.ReadDir, func() {})
	err := opened.ReadDir(opened.Info().Root, func(e disk.DirEntry) error {
		if e.Type == disk.ModeRegular {
			inos = append(inos, e.Ino)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	fs := opened.(*filesystem)
	files := make([]disk.Sparse, len(inos))
	for i, ino := range inos {
		if files[i], err = opened.Open(ino); err != nil {
			t.Fatal(err)
		}
	}
	fs.small.mu.Lock()
	for _, b := range fs.small.batches { // what was read ahead is no answer
		for _, f := range b.files {
			f.batch = nil
		}
	}
	fs.small.mu.Unlock()
	fs.client.fail(&Error{Err: ErrDied, Reason: "the test ended it"})
	<-fs.client.ended
	for i := range files {
		if _, err := files[i].ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrDied) {
			t.Errorf("file %d: %v", i, err)
		}
	}
}

// What is known of directories and their small files is bounded, whatever they are and
// however often they are listed.
func TestKnownIsBounded(t *testing.T) {
	fs := newFilesystem(&Reader{}, 0, disk.FilesystemInfo{})
	for i := range 300_000 {
		// One with a large size and no file.
		names := &wire.DirPage{Ino: uint64(i), Last: true}
		fs.nodes.addNames(new(nameListing), names)
		fs.nodes.addPages([]wire.DirPage{*names}, 17)
		d := newDirectory(uint64(i))
		page := wire.DirPage{Ino: d.dirs.ino, Last: true}
		if i%3 == 0 { // one that is listed again
			page.Entries = []wire.Entry{
				{DirEntry: disk.DirEntry{Ino: 2, Type: disk.ModeDir, Name: []byte("folder")}},
				{DirEntry: disk.DirEntry{Ino: 3}, Inode: &disk.Inode{Ino: 3, Mode: disk.ModeRegular, Size: 1}},
			}
		}
		fs.note(d, &page)
		fs.dirs.expect(&aheadPage{DirPage: page, files: &d.files, dirs: &d.dirs})
	}
	if n := len(fs.small.listings); n > maxListed {
		t.Errorf("%d listings of files are kept", n)
	}
	if n := len(fs.nodes.listings); n > maxNamed {
		t.Errorf("%d listings of names are kept", n)
	}
	if n := len(fs.nodes.answers); n > maxNodeBytes/entrySize {
		t.Errorf("%d answers are kept", n)
	}
	if n := len(fs.dirs.listings); n > maxDirs {
		t.Errorf("%d listings of directories are kept", n)
	}
	if n := len(fs.dirs.ahead); n > maxAhead/entrySize || n < len(fs.dirs.waiting) {
		t.Errorf("%d of %d directories are kept ahead", n, len(fs.dirs.waiting))
	}
}

// What is known of the files of a directory that was not read to its end counts as well:
// otherwise it would stay for good.
func TestListedInPart(t *testing.T) {
	tree := t.TempDir()
	for i := range 3000 {
		if err := os.WriteFile(filepath.Join(tree, fmt.Sprintf("file %04d", i)), bytes.Repeat([]byte("content"), 20), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, image := filepath.Join(t.TempDir(), "raw"), filepath.Join(t.TempDir(), "image")
	run(t, "mke2fs", "-q", "-t", "ext4", "-N", "8000", "-d", tree, raw, "64M")
	run(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, image)
	opened, err := start(t, image, DiskSpec{Format: Qcow2}).Filesystem(t.Context(), "image")
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	if err := opened.ReadDir(opened.Info().Root, func(disk.DirEntry) error { return enough }); !errors.Is(err, enough) {
		t.Fatal(err)
	}
	s := &opened.(*filesystem).small
	if len(s.files) == 0 || len(s.files) > 2000 || s.listed != len(s.files) || s.listings[0].names != nil {
		t.Errorf("%d files are known, %d of them count", len(s.files), s.listed)
	}
}
