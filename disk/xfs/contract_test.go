package xfs_test

import (
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/xfs"
)

// lookup finds a file of a filesystem by its path.
func lookup(t testing.TB, fs disk.Filesystem, path string) uint64 {
	t.Helper()
	n, err := disk.Lookup(fs, []byte("/"+path))
	if err != nil {
		t.Fatal(err)
	}
	return n.Ino
}

func openSeed(t testing.TB, name string, opts xfs.Options) *xfs.Filesystem {
	t.Helper()
	fs, err := xfs.Open(disktest.LoadSeed(t, name), opts)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}
