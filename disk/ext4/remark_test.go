package ext4_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// TestRemarks checks what an administrator is told.
func TestRemarks(t *testing.T) {
	le := binary.LittleEndian
	for _, r := range []struct {
		name   string
		mkfs   []string
		change func(sb []byte)
		want   []string // what the remarks start with
	}{
		{"clean", nil, func([]byte) {}, nil},
		{"errors", nil, func(sb []byte) {
			sb[0x3a] |= 2
			le.PutUint32(sb[0x194:], 3)
			le.PutUint32(sb[0x198:], 1_700_000_000)
			le.PutUint32(sb[0x1cc:], 5)
			sb[0x279] = 1
			copy(sb[0x1a8:], "\x1b[31mhostile")
		}, []string{"errors were recorded by the guest's kernel: 3, the first at 2023-11-14T22:13:20Z, the last at 2106-02-07T06:28:21Z;"}},
		{"errors of an old kernel", nil, func(sb []byte) { sb[0x3a] |= 2 }, []string{"errors were recorded by the guest's kernel; "}},
		{"ext2 in use", []string{"-O", "^has_journal"}, func(sb []byte) { sb[0x3a] &^= 1 }, []string{"the filesystem was not unmounted cleanly"}},
		{"orphans", nil, func(sb []byte) { sb[0xe8] = 12 }, []string{"files that were deleted"}},
		{"orphans in a file", []string{"-O", "orphan_file"}, func(sb []byte) { sb[0x66] |= 1 }, []string{"files that were deleted"}},
	} {
		t.Run(r.name, func(t *testing.T) {
			path := makeImage(t, 8<<20, append(r.mkfs, "-t", "ext4")...)
			m := disktest.Patch(t, path, 1024, 1024, func(sb []byte) {
				r.change(sb)
				sealSuperblock(sb)
			})
			fs, err := ext4.Open(m, ext4.Options{})
			if err != nil {
				t.Fatal(err)
			}
			checkRemarks(t, fs, r.want)
		})
	}
}

func checkRemarks(t *testing.T, fs *ext4.Filesystem, want []string) {
	t.Helper()
	if got := fs.Info().Remarks; !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("remarks are %q, want %q", got, want)
	}
}

// TestRemarksOfCrash has a crash with a deleted file that was open.
func TestRemarksOfCrash(t *testing.T) {
	path := makeImage(t, 64<<20, "-t", "ext4", "-b", "4096")
	dir, unmount := disktest.Mount(t, path, "ext4", "rw")
	w := &disktest.CrashWriter{T: t, Dir: dir}
	w.Base()
	w.Settle()
	f, err := os.Create(filepath.Join(dir, "orphan"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	w.Sync(filepath.Join(dir, "synced"))
	disktest.Crash(t, dir)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	unmount()
	checkRemarks(t, openFilesystem(t, path), []string{"the journal was replayed in memory: ", "files that were deleted"})
}
