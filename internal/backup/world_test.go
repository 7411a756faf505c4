package backup_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/testrepo"
)

// repo is a repository that the real restic can open.
type repo struct{ testrepo.Repo }

func newRepo(t *testing.T) repo { return repo{testrepo.New(t)} }

// judged lets the real restic read every byte of the repository.
func (r repo) judged(t *testing.T) {
	t.Helper()
	if out := r.Restic(t, "check", "--read-data"); !strings.Contains(out, "no errors were found") {
		t.Errorf("restic check: %s", out)
	}
}

// restored lets the real restic restore the newest snapshot.
func (r repo) restored(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "restored")
	r.Restic(t, "restore", "latest", "--target", dir)
	return dir
}

func (r repo) back(t *testing.T, sources ...backup.Source) *backup.Report {
	t.Helper()
	for i := range sources {
		sources[i].DeviceID = uint64(i + 1)
	}
	rep, err := backup.Run(t.Context(), r.Repository, sources, backup.Options{VM: "web", Round: "r1", Time: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// filesystem makes an ext4 from a folder and opens it.
func filesystem(t *testing.T, dir string) *counting {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	c := exec.CommandContext(t.Context(), "mke2fs", "-q", "-t", "ext4", "-d", dir, path, "256M")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	return openDisk(t, path)
}

// openDisk opens the ext4 that fills a disk.
func openDisk(t *testing.T, path string) *counting {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	d, err := raw.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := ext4.Open(d, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &counting{Filesystem: fsys}
}

// counting counts how often a file is opened, and fails where it is told to.
type counting struct {
	disk.Filesystem
	opens  atomic.Int64
	onOpen func(ino uint64) error
}

func (c *counting) Open(ino uint64) (disk.Sparse, error) {
	c.opens.Add(1)
	if c.onOpen != nil {
		if err := c.onOpen(ino); err != nil {
			return nil, err
		}
	}
	return c.Filesystem.Open(ino)
}

// tree makes a folder with files of many kinds.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	content := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return b
	}
	p := func(name string) string { return filepath.Join(dir, name) }
	must(os.MkdirAll(p("etc/deep/er"), 0o755))
	must(os.MkdirAll(p("var"), 0o711))
	must(os.WriteFile(p("etc/hostname"), []byte("web\n"), 0o644))
	must(os.WriteFile(p("etc/empty"), nil, 0o600))
	must(os.WriteFile(p("etc/deep/er/big"), content(5<<20), 0o640))
	must(os.WriteFile(p("etc/setuid"), []byte("x"), 0o755))
	must(os.Chmod(p("etc/setuid"), 0o755|os.ModeSetuid))
	must(os.Symlink("../etc/hostname", p("etc/link")))
	must(os.Link(p("etc/hostname"), p("etc/other-name")))
	must(os.WriteFile(p("etc/not\xffutf8"), []byte("odd"), 0o644))
	must(os.Lchown(p("etc/empty"), 1234, 70000))
	must(unix.Setxattr(p("etc/hostname"), "user.comment", []byte("a \x00 value"), 0))
	must(unix.Mknod(p("etc/fifo"), unix.S_IFIFO|0o600, 0))
	must(unix.Mknod(p("etc/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	f, err := os.Create(p("etc/sparse"))
	must(err)
	must(f.Truncate(64 << 20))
	_, err = f.WriteAt(content(4096), 40<<20)
	must(err)
	must(f.Close())
	for i := range 50 {
		must(os.WriteFile(p(fmt.Sprintf("etc/deep/%d", i)), content(100+i*1000), 0o644))
	}
	// mke2fs -d keeps whole seconds only.
	old := unix.NsecToTimespec(time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC).UnixNano())
	must(filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{old, old}, unix.AT_SYMLINK_NOFOLLOW))
	}))
	return dir
}

// listing describes a folder: names, types, modes, owners, mtimes, xattrs,
// contents, and which names are one file.
func listing(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%q %o %d:%d rdev %d", rel, st.Mode, st.Uid, st.Gid, st.Rdev)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %v", st.Mtim.Nano(), repository.Hash(data))
			if st.Nlink > 1 {
				if first[st.Ino] == "" {
					first[st.Ino] = rel
				}
				line += " = " + first[st.Ino]
			}
			buf := make([]byte, 100)
			if n, err := unix.Lgetxattr(path, "user.comment", buf); err == nil {
				line += fmt.Sprintf(" %q", buf[:n])
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" → %q", target)
		case unix.S_IFDIR:
			line += fmt.Sprintf(" %d", st.Mtim.Nano())
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func compare(t *testing.T, got, want []string) {
	t.Helper()
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("missing or different: %s", w)
		}
	}
	for _, g := range got {
		if !slices.Contains(want, g) && !strings.Contains(g, "lost+found") {
			t.Errorf("unexpected:           %s", g)
		}
	}
}

// nodeAt returns the node of a path in a stored tree.
func nodeAt(t *testing.T, r repo, tree repository.ID, path string) *repository.Node {
	t.Helper()
	name, rest, deeper := strings.Cut(path, "/")
	folder, err := r.LoadTree(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := folder.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		if nodes[i].Name != name {
			continue
		}
		if deeper {
			return nodeAt(t, r, *nodes[i].Subtree, rest)
		}
		return &nodes[i]
	}
	t.Fatalf("there is no %s", path)
	return nil
}
