package verify_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/verify"
)

const password = "a password"

// place is a folder with a repository that the real restic can open.
type place struct{ dir, keyFile string }

func newPlace(t *testing.T) place {
	t.Helper()
	p := place{filepath.Join(t.TempDir(), "repo"), filepath.Join(t.TempDir(), "key")}
	check(t, os.WriteFile(p.keyFile, []byte(password+"\n"), 0o600))
	_, err := repository.Create(t.Context(), local.New(p.dir), []byte(password),
		repository.CreateOptions{KDF: &crypto.Params{N: 1 << 10, R: 8, P: 1}})
	check(t, err)
	return p
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// copied is a copy of the place, to be damaged.
func (p place) copied(t *testing.T) place {
	t.Helper()
	to := place{filepath.Join(t.TempDir(), "repo"), p.keyFile}
	check(t, os.CopyFS(to.dir, os.DirFS(p.dir)))
	return to
}

func (p place) open(t *testing.T, options repository.Options) (*repository.Repository, error) {
	t.Helper()
	return repository.Open(t.Context(), local.New(p.dir), []byte(password), options)
}

// command is restic on the repository.
func (p place) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return exec.CommandContext(t.Context(), "restic", append([]string{"-r", p.dir, "--password-file", p.keyFile, "--no-cache"}, args...)...)
}

// restic runs restic and returns what it printed.
func (p place) restic(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := p.command(t, args...)
	out, err := c.CombinedOutput()
	if c.ProcessState == nil {
		t.Fatalf("restic is missing: install Debian's package of that name: %v", err)
	}
	return string(out), err
}

// files returns the paths below a folder of the repository, sorted.
func (p place) files(t *testing.T, folder string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(filepath.Join(p.dir, folder), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && backend.ValidName(d.Name()) {
			out = append(out, path)
		}
		return err
	})
	check(t, err)
	return out
}

// verified runs a verification.
func (p place) verified(t *testing.T, o verify.Options) *verify.Report {
	t.Helper()
	repo, err := p.open(t, repository.Options{})
	check(t, err)
	report, err := verify.Run(t.Context(), repo, o)
	check(t, err)
	return report
}

// guest is the files of a guest by path, without a slash in front.
type guest map[string][]byte

// change makes the guest another day older.
func (g guest) change(r *rand.Rand) guest {
	g = maps.Clone(g)
	for _, name := range slices.Sorted(maps.Keys(g)) {
		if r.IntN(6) == 0 {
			delete(g, name)
		}
	}
	for range 1 + r.IntN(8) {
		content := make([]byte, r.IntN(1<<(4+r.IntN(17))))
		for i := range content {
			content[i] = byte(r.Uint32() >> 24)
		}
		if r.IntN(4) == 0 {
			content = bytes.Repeat([]byte("what can be compressed\n"), r.IntN(5000))
		}
		g[fmt.Sprintf("d%d/e%d/f%d", r.IntN(3), r.IntN(3), r.IntN(20))] = content
	}
	return g
}

// filesystem is the guest's disk.
func (g guest) filesystem() disk.Filesystem {
	f := treetest.NewFake()
	inodes := map[string]uint64{".": treetest.Root}
	next := uint64(treetest.Root)
	var dir func(name string) uint64
	dir = func(name string) uint64 {
		if ino, ok := inodes[name]; ok {
			return ino
		}
		parent := dir(path.Dir(name))
		next++
		inodes[name] = f.Dir(parent, path.Base(name), next)
		return next
	}
	for _, name := range slices.Sorted(maps.Keys(g)) {
		parent := dir(path.Dir(name))
		next++
		f.File(parent, path.Base(name), next, treetest.Content{Data: g[name]})
		n := f.Inodes[next]
		n.Change = disk.Time{Sec: 1 + int64(len(g[name]))}
		// A changed content has another time, as a kernel would see to.
		id := repository.Hash(g[name])
		n.Change.Nsec = uint32(id[0])<<16 | uint32(id[1])<<8 | uint32(id[2])
		f.Inodes[next] = n
	}
	return f
}

// backUp stores a guest.
func (g guest) backUp(ctx context.Context, repo *repository.Repository, vm string, at time.Time) (*backup.Report, error) {
	return backup.Run(ctx, repo, []backup.Source{{Disk: "root", Mount: "/", FS: g.filesystem(), DeviceID: 1}},
		backup.Options{VM: vm, Time: at, Program: "drydock test"})
}

// lostOf restores a backup in memory, and returns the files that do not come back
// as they were.
func (g guest) lostOf(t *testing.T, repo *repository.Repository, id repository.ID) []string {
	t.Helper()
	all := slices.Sorted(maps.Keys(g))
	s, err := repo.LoadSnapshot(t.Context(), id)
	if err != nil {
		return all
	}
	tree, err := restore.OpenTree(t.Context(), repo, s)
	if err != nil {
		return all
	}
	return slices.DeleteFunc(all, func(name string) bool {
		got, err := content(tree, name)
		return err == nil && bytes.Equal(got, g[name])
	})
}

func content(tree *restore.Tree, name string) ([]byte, error) {
	ino, err := disk.Lookup(tree, []byte("/"+name))
	if err != nil {
		return nil, err
	}
	f, err := tree.Open(ino.Ino)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
}

// named returns the files of the guest that a report calls damaged.
func (g guest) named(b *verify.Backup) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(g)), func(name string) bool {
		return !slices.ContainsFunc(b.Damaged, func(f verify.File) bool {
			at := string(f.Path)
			return at == "/"+name || strings.HasSuffix(at, "/") && strings.HasPrefix("/"+name, at)
		})
	})
}
