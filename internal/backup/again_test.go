package backup_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/testmount"
)

const (
	dirMode  = disk.ModeDir | 0o755
	fileMode = disk.ModeRegular | 0o644
)

// flat is a filesystem with files of those contents in its root directory, with
// inode numbers from 10 in the order of the arguments.
func flat(contents ...string) hostile {
	h := hostile{
		root: 2, inodes: map[uint64]disk.Inode{2: {Ino: 2, Mode: dirMode}},
		entries: map[uint64][]disk.DirEntry{}, files: map[uint64]disk.Sparse{},
	}
	for i, c := range contents {
		h.put(2, fmt.Sprintf("f%d", i), uint64(10+i), c)
	}
	return h
}

// put puts a file into a folder.
func (h hostile) put(dir uint64, name string, ino uint64, content string) {
	h.entries[dir] = append(h.entries[dir], disk.DirEntry{Name: []byte(name), Ino: ino})
	h.write(ino, content)
}

// write gives a file new content, and a new ctime.
func (h hostile) write(ino uint64, content string) {
	n := h.inodes[ino]
	n.Ino, n.Mode, n.Size, n.Links = ino, fileMode, int64(len(content)), 1
	n.Change.Sec++
	h.inodes[ino] = n
	h.files[ino] = &pieces{data: []byte(content), extents: []disk.Extent{{Length: int64(len(content))}}}
}

func root(fsys disk.Filesystem) backup.Source {
	return backup.Source{Disk: "root", Mount: "/", FS: fsys}
}

// The next version of an image has a changed file with the inode, the size and
// the times of the one before: images are built to be reproducible.
func TestAnotherDiskIsReadInWhole(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	fsys := flat("version 1", "same")
	src := root(fsys)
	src.Identity = "image 1"
	first := r.back(t, src)

	fsys.files[10] = &pieces{data: []byte("version 2")}
	src.Identity = "image 2"
	second := r.back(t, src)
	if second.FilesChanged != 2 || second.Tree == first.Tree {
		t.Errorf("%+v", second)
	}
	want := repository.Hash([]byte("version 2"))
	if n := nodeAt(t, r, second.Tree, "f0"); n.Content[0] != want {
		t.Error("the old content was taken for the new one")
	}
	// The same file at the same place: nothing but the tree is new.
	if third := r.back(t, src); third.FilesUnchanged != 2 || third.BytesStored != 0 || third.Tree != second.Tree {
		t.Errorf("%+v", third)
	}
	r.judged(t)
}

func TestChangesAreFound(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	fsys := flat("zero", "one", "two", "three")
	r.back(t, root(fsys))
	fsys.write(10, "ZERO")
	fsys.entries[2][1].Name = []byte("renamed")
	fsys.entries[2] = append(fsys.entries[2][:2], fsys.entries[2][3:]...)
	fsys.put(2, "new", 99, "new")
	rep := r.back(t, root(fsys))
	// A renamed file is a new one, of known content.
	if rep.FilesChanged != 1 || rep.FilesNew != 2 || rep.FilesUnchanged != 1 || rep.DirsChanged != 1 {
		t.Errorf("%+v", rep)
	}
	out := r.Restic(t, "ls", "latest")
	for name, want := range map[string]bool{"/f0": true, "/f1": false, "/renamed": true, "/f2": false, "/f3": true, "/new": true} {
		if strings.Contains(out, name+"\n") != want {
			t.Errorf("%s is there: %v", name, !want)
		}
	}
	r.judged(t)
}

// A parent that names content which the repository does not have is no reason to
// believe it.
func TestLostContentIsReadAgain(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	fsys := &counting{Filesystem: flat("zero", "one")}
	first := r.back(t, root(fsys))
	parent, err := r.LoadSnapshot(t.Context(), first.ID)
	if err != nil {
		t.Fatal(err)
	}
	node0, node1 := *nodeAt(t, r, first.Tree, "f0"), *nodeAt(t, r, first.Tree, "f1")
	node0.Content = []repository.ID{repository.Hash([]byte("gone"))}
	forged, err := repository.EncodeTree([]repository.Node{node0, node1})
	if err != nil {
		t.Fatal(err)
	}
	if parent.Tree, _, err = r.SaveTree(t.Context(), forged); err != nil {
		t.Fatal(err)
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	opens := fsys.opens.Load()
	src := root(fsys)
	src.DeviceID = 1
	rep, err := backup.Run(t.Context(), r.Repository, []backup.Source{src}, backup.Options{VM: "web", Time: time.Now(), Parent: parent})
	if err != nil || rep.Tree != first.Tree || fsys.opens.Load() != opens+1 {
		t.Errorf("%+v, %v", rep, err)
	}

	parent.Tree = repository.Hash([]byte("no tree"))
	rep, err = backup.Run(t.Context(), r.Repository, []backup.Source{src}, backup.Options{VM: "web", Time: time.Now(), Parent: parent})
	if err != nil || rep.Tree != first.Tree || len(rep.Warnings) != 1 || !errors.Is(rep.Warnings[0], repository.ErrBlobNotFound) {
		t.Errorf("a parent without a tree: %+v, %v", rep, err)
	}
}

func TestHardlinksAreReadOnce(t *testing.T) {
	t.Parallel()
	h := flat("zero", strings.Repeat("large", 1<<20))
	for _, ino := range []uint64{10, 11} {
		n := h.inodes[ino]
		n.Links = 3
		h.inodes[ino] = n
		for i := range 2 {
			h.entries[2] = append(h.entries[2], disk.DirEntry{Name: fmt.Appendf(nil, "link %d to %d", i, ino), Ino: ino})
		}
	}
	fsys := &counting{Filesystem: h}
	r := newRepo(t)
	rep := r.back(t, root(fsys))
	if fsys.opens.Load() != 2 || rep.FilesNew != 6 {
		t.Errorf("%d files were opened: %+v", fsys.opens.Load(), rep)
	}
	r.judged(t)
}

// failing fails to list a folder behind its second entry.
type failing struct {
	hostile
	ino uint64
	err error
}

func (f failing) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	if ino != f.ino {
		return f.hostile.ReadDir(ino, yield)
	}
	for _, e := range f.entries[ino][:min(2, len(f.entries[ino]))] {
		if err := yield(e); err != nil {
			return err
		}
	}
	return f.err
}

var errDir = &disk.Error{Layer: "ext4", Structure: "directory block", Offset: 4096, Err: disk.ErrCorrupt}

func TestDamagedFolder(t *testing.T) {
	t.Parallel()
	h := flat("zero")
	h.inodes[3] = disk.Inode{Ino: 3, Mode: dirMode}
	h.entries[2] = append(h.entries[2], disk.DirEntry{Name: []byte("dir"), Ino: 3})
	for i := range uint64(4) {
		h.put(3, fmt.Sprint(i), 20+i, "x")
	}
	r := newRepo(t)
	rep := r.back(t, root(failing{h, 3, errDir}))
	if rep.DamagedTotal != 1 || string(rep.Damaged[0].Path) != "/dir" || rep.FilesNew != 3 {
		t.Errorf("%+v", rep)
	}
	if nodeAt(t, r, rep.Tree, "dir/1").Size != 1 {
		t.Error("what could be read is missing")
	}
	r.judged(t)
}

func TestNoRoot(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	notDir := flat()
	notDir.inodes[2] = disk.Inode{Ino: 2, Mode: fileMode}
	for _, fsys := range []disk.Filesystem{failing{flat(), 2, errDir}, notDir} {
		src := root(fsys)
		src.DeviceID = 1
		_, err := backup.Run(t.Context(), r.Repository, []backup.Source{src}, backup.Options{VM: "web", Time: time.Now()})
		if !errors.Is(err, backup.ErrNoRoot) || !errors.Is(err, disk.ErrCorrupt) {
			t.Errorf("%v", err)
		}
	}
	if all, err := backup.Find(t.Context(), r.Repository, "web"); len(all) != 0 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	if out := r.Restic(t, "list", "locks"); strings.TrimSpace(out) != "" {
		t.Errorf("locks were left: %s", out)
	}
}

// grow changes a filesystem at random: files and folders come, go, and change.
func grow(rng *rand.Rand, h hostile, next *uint64) {
	var dirs []uint64
	for ino, n := range h.inodes {
		if n.Mode == dirMode {
			dirs = append(dirs, ino)
		}
	}
	for range 20 {
		dir := dirs[rng.IntN(len(dirs))]
		*next++
		name := fmt.Sprintf("%d \xff\n%d", rng.IntN(1000), *next)
		switch rng.IntN(6) {
		case 0:
			h.inodes[*next] = disk.Inode{Ino: *next, Mode: dirMode, Modify: disk.Time{Sec: int64(*next)}}
			h.entries[dir] = append(h.entries[dir], disk.DirEntry{Name: []byte(name), Ino: *next})
			dirs = append(dirs, *next)
		case 1:
			if e := h.entries[dir]; len(e) > 0 {
				i := rng.IntN(len(e))
				h.entries[dir] = append(e[:i:i], e[i+1:]...)
			}
		case 2:
			if e := h.entries[dir]; len(e) > 0 {
				if ino := e[rng.IntN(len(e))].Ino; h.inodes[ino].Mode == fileMode {
					h.write(ino, strings.Repeat(name, rng.IntN(100)))
				}
			}
		case 3: // a hardlink
			if e := h.entries[dir]; len(e) > 0 {
				if ino := e[rng.IntN(len(e))].Ino; h.inodes[ino].Mode == fileMode {
					n := h.inodes[ino]
					n.Links++
					n.Change.Sec++
					h.inodes[ino] = n
					h.entries[dir] = append(h.entries[dir], disk.DirEntry{Name: []byte(name), Ino: ino})
				}
			}
		default:
			h.put(dir, name, *next, strings.Repeat(name, rng.IntN(1<<rng.IntN(17))))
		}
	}
}

// Whatever happened in between, an incremental backup gives the tree that a full
// one gives.
func TestIncrementalIsFull(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	r := newRepo(t)
	h, next := flat("zero"), uint64(100)
	for i := range 25 {
		grow(rng, h, &next)
		incremental := r.back(t, root(h))
		full := root(h)
		full.Identity = fmt.Sprint(i)
		want := r.back(t, full)
		if incremental.Tree != want.Tree || want.FilesUnchanged != 0 {
			t.Fatalf("round %d: %+v, and in full %+v", i, incremental, want)
		}
		// The next one has a parent of the same disk.
		r.back(t, root(h))
	}
	r.judged(t)
}

func TestLargeFolder(t *testing.T) {
	t.Parallel()
	h := flat()
	const n = 100_000
	for i := range uint64(n) {
		h.entries[2] = append(h.entries[2], disk.DirEntry{Name: fmt.Append(nil, (i*7919)%n), Ino: 10 + i})
		h.inodes[10+i] = disk.Inode{Ino: 10 + i, Mode: fileMode, Links: 1}
	}
	r := newRepo(t)
	first := r.back(t, root(h))
	second := r.back(t, root(h))
	if first.FilesNew != n || second.FilesUnchanged != n || second.BytesStored != 0 || second.Tree != first.Tree {
		t.Errorf("%+v\n%+v", first, second)
	}
	r.judged(t)
}

func TestDeepFolders(t *testing.T) {
	t.Parallel()
	h := flat("zero")
	parent := uint64(2)
	for ino := uint64(100); ino < 3000; ino++ {
		h.inodes[ino] = disk.Inode{Ino: ino, Mode: dirMode}
		h.entries[parent] = append(h.entries[parent], disk.DirEntry{Name: []byte("d"), Ino: ino})
		parent = ino
	}
	h.put(parent, "treasure", 5000, "x")
	r := newRepo(t)
	rep := r.back(t, root(h))
	if rep.DamagedTotal != 1 || !errors.Is(rep.Damaged[0].Err, disk.ErrLimit) || rep.FilesNew != 1 || rep.DirsNew != 2049 {
		t.Errorf("%+v", rep)
	}
}

// A backup that is called off at any moment leaves no snapshot, and the next one
// is whole.
func TestCalledOffAnywhere(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	var contents []string
	for i := range 30 {
		contents = append(contents, fmt.Sprint("content ", i))
	}
	contents[15] = strings.Repeat("large", 1<<20)
	h := flat(contents...)
	for at := int64(1); at < 20; at += 3 {
		ctx, cancel := context.WithCancel(t.Context())
		fsys := &counting{Filesystem: h}
		fsys.onOpen = func(uint64) error {
			if fsys.opens.Load() == at {
				cancel()
			}
			return nil
		}
		src := root(fsys)
		src.DeviceID = 1
		_, err := backup.Run(ctx, r.Repository, []backup.Source{src}, backup.Options{VM: "web", Time: time.Now()})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("called off at file %d of %d: %v", at, fsys.opens.Load(), err)
		}
		if all, err := backup.Find(t.Context(), r.Repository, "web"); len(all) != 0 || err != nil {
			t.Fatalf("%v, %v", all, err)
		}
	}
	if out := r.Restic(t, "list", "locks"); strings.TrimSpace(out) != "" {
		t.Errorf("locks were left: %s", out)
	}
	if rep := r.back(t, root(h)); rep.DamagedTotal != 0 || rep.Parent != nil || rep.FilesNew != 30 {
		t.Errorf("%+v", rep)
	}
	r.judged(t)
}

// A program that gives a file its old time of modification back, as a real kernel
// does it.
func TestForgedTimeIsReadAgain(t *testing.T) {
	t.Parallel()
	image := filepath.Join(t.TempDir(), "disk.raw")
	if out, err := exec.CommandContext(t.Context(), "mke2fs", "-q", "-t", "ext4", "-I", "256", image, "16M").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	then := time.Date(2020, 1, 2, 3, 4, 5, 6, time.UTC)
	write := func(name, content string) {
		t.Helper()
		dir, unmount := testmount.Image(t, image, "")
		defer unmount()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(content), 0o644), os.Chtimes(path, then, then)); err != nil {
			t.Fatal(err)
		}
	}
	r := newRepo(t)
	write("beside", "the same")
	write("file", "the old content")
	r.back(t, root(openDisk(t, image)))
	write("file", "the new content")
	rep := r.back(t, root(openDisk(t, image)))
	if rep.FilesChanged != 1 || rep.FilesUnchanged != 1 || rep.BytesRead != int64(len("the new content")) {
		t.Errorf("%+v", rep)
	}
	n := nodeAt(t, r, rep.Tree, "file")
	if n.Content[0] != repository.Hash([]byte("the new content")) || n.ModTime.Nanosecond() != 6 {
		t.Errorf("%+v", n)
	}
}
