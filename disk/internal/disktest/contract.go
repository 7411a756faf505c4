package disktest

import (
	"errors"
	"sync"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// Lookup returns the inode number of the file at a path.
func Lookup(t testing.TB, fs disk.Filesystem, path string) uint64 {
	t.Helper()
	n, err := disk.Lookup(fs, []byte(path))
	if err != nil {
		t.Fatal(err)
	}
	return n.Ino
}

// CheckConcurrent walks one filesystem, which should hold want, from several
// goroutines at once.
func CheckConcurrent(t testing.TB, want Tree, fs disk.Filesystem) {
	t.Helper()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { CompareTrees(t, want, ReadTree(t, fs)) })
	}
	wg.Wait()
}

// CheckWrongType asks of a regular file and of a directory with entries what they
// are not, and checks that ReadDir ends where yield says so.
func CheckWrongType(t testing.TB, fs disk.Filesystem, file, dir uint64) {
	t.Helper()
	if _, err := fs.Open(dir); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("content of a directory: %v", err)
	}
	if _, err := fs.Readlink(file); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("target of a file: %v", err)
	}
	if err := fs.ReadDir(file, nil); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("entries of a file: %v", err)
	}
	stop := errors.New("stop")
	if err := fs.ReadDir(dir, func(disk.DirEntry) error { return stop }); err != stop {
		t.Errorf("the error of yield comes back as %v", err)
	}
}
