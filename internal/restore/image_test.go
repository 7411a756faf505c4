package restore_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/qemuimg"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
)

const diskSize = 24<<20 + 512

// wholeDisk makes a backup of a disk of noise and zeros, and returns both.
func wholeDisk(t *testing.T) (repo, *restore.Tree, []byte) {
	t.Helper()
	data := make([]byte, diskSize)
	for off := 0; off < len(data); off += 6 << 20 { // a third of it is noise
		_, _ = rand.NewChaCha8([32]byte{byte(off >> 20)}).Read(data[off:min(off+2<<20, len(data))])
	}
	d, err := raw.Open(bytes.NewReader(data), diskSize)
	if err != nil {
		t.Fatal(err)
	}
	r, now := newRepo(t), time.Now()
	rep, err := backup.Run(t.Context(), r.Repository, nil, backup.Options{
		VM: "db", Time: now,
		Objects: func(ctx context.Context, parent *repository.Snapshot) ([]backup.Object, error) {
			list, _, err := wholedisk.Save(ctx, r.Repository, parent, wholedisk.Source{Disk: "data", Content: d}, wholedisk.Options{Time: now})
			return list, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.LoadSnapshot(t.Context(), rep.ID)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := restore.OpenTree(t.Context(), r.Repository, s)
	if err != nil {
		t.Fatal(err)
	}
	return r, tree, data
}

// TestWriteImage restores a disk, is interrupted, goes on with what is there, and
// with what somebody else has left there.
func TestWriteImage(t *testing.T) {
	_, tree, data := wholeDisk(t)
	path := filepath.Join(t.TempDir(), "data.raw")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := tree.WriteImage(ctx, "data", path, restore.ImageOptions{Progress: func(r restore.ImageReport) {
		if r.Written > 2<<20 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("an interrupted restore: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an interrupted restore left %s: %v", path, err)
	}
	part, err := os.OpenFile(path+restore.PartEnding, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer part.Close()
	// Where zeros are wanted, and where the content is.
	for _, off := range []int64{3 << 20, 100_000, diskSize - 100} {
		if _, err := part.WriteAt([]byte("left by somebody else"), off); err != nil {
			t.Fatal(err)
		}
	}
	rep, err := tree.WriteImage(t.Context(), "data", path, restore.ImageOptions{})
	if err != nil || rep.Resumed < 16<<20 || rep.Written == 0 || rep.Resumed+rep.Written+rep.Holes != diskSize {
		t.Errorf("the second restore: %+v, %v", rep, err)
	}
	check(t, path, data)
	if _, err := tree.WriteImage(t.Context(), "data", path, restore.ImageOptions{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a restore over a file: %v", err)
	}
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	rep, err = tree.WriteImage(t.Context(), "data", path, restore.ImageOptions{Overwrite: true})
	if err != nil || rep.Holes < 15<<20 {
		t.Errorf("a restore that overwrites: %+v, %v", rep, err)
	}
	check(t, path, data)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Blocks*512 > 10<<20 {
		t.Errorf("the file takes %d bytes, %v", st.Blocks*512, err)
	}
	if _, err := tree.WriteImage(t.Context(), "other", path+"2", restore.ImageOptions{}); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("a disk that the backup does not have: %v", err)
	}
}

func check(t *testing.T, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes that differ, %v", path, len(got), err)
	}
}

// TestWriteQCOW2 has qemu-img judge the image, and convert it back.
func TestWriteQCOW2(t *testing.T) {
	r, tree, data := wholeDisk(t)
	d, err := tree.Image("data")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "data.qcow2")
	if err := restore.WriteQCOW2(t.Context(), d, path, qemuimg.New(qemuimg.Options{}), restore.ImageOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "-q", path}, {"convert", "-f", "qcow2", "-O", "raw", path, path + ".raw"}} {
		if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
			t.Fatalf("qemu-img %s: %v\n%s", args, err, out)
		}
	}
	check(t, path+".raw", data)
	if info, err := os.Stat(path); err != nil || info.Size() > 10<<20 || info.Mode() != 0o600 {
		t.Errorf("the image: %+v, %v", info, err)
	}
	// Every pack is damaged from now on. What was read of it is in the cache of
	// another tree.
	s, err := restore.Find(t.Context(), r.Repository, "db", restore.Latest)
	if err != nil {
		t.Fatal(err)
	}
	if tree, err = restore.OpenTree(t.Context(), r.Repository, s); err != nil {
		t.Fatal(err)
	}
	ruin(t, r.Dir)
	d, err = tree.Image("data")
	if err == nil {
		err = restore.WriteQCOW2(t.Context(), d, path+"2", qemuimg.New(qemuimg.Options{}), restore.ImageOptions{})
	}
	if !errors.Is(err, repository.ErrDamaged) && (err == nil || !strings.Contains(err.Error(), "damaged")) {
		t.Errorf("from a damaged repository: %v", err)
	}
	for _, left := range []string{path + "2", path + "2" + restore.PartEnding} {
		if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", left, err)
		}
	}
	if _, err := tree.WriteImage(t.Context(), "data", path+"3", restore.ImageOptions{}); !errors.Is(err, disk.ErrCorrupt) {
		t.Errorf("a raw image from a damaged repository: %v", err)
	}
}

// ruin flips a bit in the middle of each 4 KiB of all packs.
func ruin(t *testing.T, dir string) {
	t.Helper()
	err := filepath.Walk(filepath.Join(dir, "data"), func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i := 2048; i < len(data); i += 4096 {
			data[i] ^= 1
		}
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		return os.WriteFile(path, data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestReplace puts a disk in the place of another.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path, restored, kept := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	for p, text := range map[string]string{path: "old", restored: "new"} {
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(path, 0o640), os.Chown(path, 123, 456), restore.Replace(path, restored, kept)); err != nil {
		t.Fatal(err)
	}
	check(t, path, []byte("new"))
	check(t, kept, []byte("old"))
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Uid != 123 || st.Gid != 456 || st.Mode&0o777 != 0o640 {
		t.Errorf("the new disk is %d:%d, mode %o, %v", st.Uid, st.Gid, st.Mode, err)
	}
	if _, err := os.Lstat(restored); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", restored, err)
	}
	if err := restore.Replace(path, restored, kept+"2"); err == nil {
		t.Error("nothing took the place of a disk")
	}
	check(t, path, []byte("new"))
}
