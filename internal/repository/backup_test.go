package repository_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/repository"
)

// A backup program of the smallest kind, for tests: it stores a folder as restic
// does, and reads one back.

// random returns reproducible bytes that do not compress.
func random(seed uint64, size int) []byte {
	p := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(p) // has no error
	return p
}

// makeTree fills a folder with what a guest may hold.
func makeTree(t testing.TB, dir string, seed uint64) {
	t.Helper()
	files := map[string][]byte{
		"empty":               {},
		"small":               []byte("content\n"),
		"text":                bytes.Repeat([]byte("the same line over and over\n"), 50_000),
		"random":              random(seed, 3<<20+17),
		"again":               random(seed, 3<<20+17),
		"one chunk":           random(seed+1, repository.MinChunk),
		"zeros":               make([]byte, 20<<20),
		"name \xff\xfe":       []byte("not UTF-8"),
		"tab\tquote\" back\\": []byte("escapes"),
		"<html>&amp;":         []byte("html"),
		"späße 雪\u2028":       []byte("UTF-8"),
		"sub/dir/deep":        random(seed+2, 1000),
		"sub/dir.txt":         []byte("sorts before dir/"),
	}
	for i := range 50 {
		files[fmt.Sprintf("many/%03d", i)] = random(seed+uint64(i)*3, i*100)
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "nothing"), 0o700),
		// Not one that is not UTF-8: restic 0.14 stores and restores it wrongly.
		os.Symlink("späße <&>", filepath.Join(dir, "link")),
		os.Symlink("small", filepath.Join(dir, "good link")),
		os.Link(filepath.Join(dir, "small"), filepath.Join(dir, "hardlink")),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
		os.Chmod(filepath.Join(dir, "small"), 0o755|os.ModeSetuid),
		os.Chmod(filepath.Join(dir, "many"), 0o777|os.ModeSticky),
		os.Lchown(filepath.Join(dir, "text"), 1234, 5678),
		unix.Lsetxattr(filepath.Join(dir, "small"), "user.empty", nil, 0),
		unix.Lsetxattr(filepath.Join(dir, "small"), "user.binary", []byte{0, 1, 0xff}, 0),
		os.Chtimes(filepath.Join(dir, "text"), time.Unix(0, 1), time.Unix(1234567890, 123456789)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// store saves a folder and returns the ID of its tree.
func store(t testing.TB, r *repository.Repository, dir string) repository.ID {
	t.Helper()
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		t.Fatal(err)
	}
	tree := repository.NewTreeEncoder()
	for _, e := range entries {
		n := makeNode(t, r, filepath.Join(dir, e.Name()))
		if err := tree.Add(&n); err != nil {
			t.Fatal(err)
		}
	}
	id, _, err := r.SaveTree(t.Context(), tree.Finish())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// makeNode saves what path holds, and returns its node.
func makeNode(t testing.TB, r *repository.Repository, path string) repository.Node {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	n := repository.Node{
		Name: filepath.Base(path), Mode: repository.FileMode(st.Mode),
		ModTime: time.Unix(st.Mtim.Unix()).UTC(), AccessTime: time.Unix(st.Atim.Unix()).UTC(), ChangeTime: time.Unix(st.Ctim.Unix()).UTC(),
		UID: st.Uid, GID: st.Gid, Inode: st.Ino, DeviceID: st.Dev, Links: st.Nlink,
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		n.Type = repository.NodeFile
		n.Size = uint64(st.Size)
		n.Content = storeFile(t, r, path)
	case unix.S_IFDIR:
		n.Type = repository.NodeDir
		id := store(t, r, path)
		n.Subtree = &id
	case unix.S_IFLNK:
		n.Type = repository.NodeSymlink
		n.LinkTarget, err = os.Readlink(path)
	case unix.S_IFIFO:
		n.Type = repository.NodeFIFO
	default:
		t.Fatalf("%s: unexpected mode %o", path, st.Mode)
	}
	if err != nil {
		t.Fatal(err)
	}
	n.Xattrs = xattrs(t, path)
	return n
}

func xattrs(t testing.TB, path string) (list []repository.Xattr) {
	t.Helper()
	names := make([]byte, 1<<10)
	size, err := unix.Llistxattr(path, names)
	if err != nil {
		t.Fatal(err)
	}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(names[:size], []byte{0}), []byte{0}) {
		if len(name) == 0 {
			continue
		}
		value := make([]byte, 1<<10)
		n, err := unix.Lgetxattr(path, string(name), value)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, repository.Xattr{Name: string(name), Value: value[:n]})
	}
	return list
}

func storeFile(t testing.TB, r *repository.Repository, path string) []repository.ID {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	content, size, _, err := r.SaveStream(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != size {
		t.Errorf("%s: saved %d bytes of %v, %v", path, size, info, err)
	}
	return content
}

// backup stores a folder as a snapshot whose root it is.
func backup(t testing.TB, r *repository.Repository, dir string) repository.ID {
	t.Helper()
	tree := store(t, r, dir)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	id, err := r.SaveSnapshot(t.Context(), &repository.Snapshot{
		Time: time.Now(), Tree: tree, Paths: []string{"/"}, Hostname: "guest", Username: "root",
		Tags: []string{"drydock", "vm=guest"}, ProgramVersion: "drydock test",
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// restore writes a tree's names, types and contents to a new folder. The names
// come from this package's tests, so they are safe.
func restore(t testing.TB, r *repository.Repository, tree repository.ID, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	folder, err := r.LoadTree(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := folder.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := repository.EncodeTree(nodes); err != nil || !bytes.Equal(again.Bytes(), folder.Bytes()) {
		t.Errorf("the tree of %s encodes otherwise: %v\n%.2000s\n%.2000s", dir, err, folder.Bytes(), again.Bytes())
	}
	for _, n := range nodes {
		path := filepath.Join(dir, n.Name)
		switch n.Type {
		case repository.NodeDir:
			restore(t, r, *n.Subtree, path)
		case repository.NodeFile:
			err = restoreFile(t, r, &n, path)
		case repository.NodeSymlink:
			err = os.Symlink(n.LinkTarget, path)
		case repository.NodeFIFO:
			err = unix.Mkfifo(path, 0o600)
		default:
			t.Errorf("%s: unexpected type %s", path, n.Type)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func restoreFile(t testing.TB, r *repository.Repository, n *repository.Node, path string) error {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var size uint64
	var buf []byte
	for _, id := range n.Content {
		buf, err = r.LoadBlob(t.Context(), repository.DataBlob, id, buf)
		if err != nil {
			return err
		}
		if want, ok := r.BlobSize(repository.DataBlob, id); !ok || want != int64(len(buf)) {
			t.Errorf("blob %s has %d bytes, and the index says %d, %v", id, len(buf), want, ok)
		}
		size += uint64(len(buf))
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	if size != n.Size {
		return fmt.Errorf("%s: %d bytes of %d: %w", path, size, n.Size, io.ErrUnexpectedEOF)
	}
	return nil
}
