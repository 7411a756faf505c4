package ext4_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// journals are the forms that a journal can have.
var journals = []struct {
	name  string
	mkfs  []string
	mount string
}{
	{"csum-v3-64bit", []string{"-t", "ext4", "-b", "4096"}, "data=ordered"},
	{"csum-v3-32bit", []string{"-t", "ext4", "-b", "1024", "-O", "^64bit"}, "data=ordered"},
	{"no-csum-64bit", []string{"-t", "ext4", "-b", "4096", "-O", "^metadata_csum"}, "data=ordered"},
	{"no-csum-ext3", []string{"-t", "ext3", "-b", "1024"}, "data=ordered"},
	{"csum-v1", []string{"-t", "ext4", "-b", "4096", "-O", "^metadata_csum,^64bit"}, "journal_checksum"},
	{"csum-v1-async", []string{"-t", "ext4", "-b", "4096", "-O", "^metadata_csum"}, "journal_async_commit,data=writeback"},
	{"csum-v3-async", []string{"-t", "ext4", "-b", "4096"}, "journal_async_commit,data=writeback"},
	{"data-journal", []string{"-t", "ext4", "-b", "4096"}, "data=journal"},
	{"data-journal-ext3", []string{"-t", "ext3", "-b", "1024"}, "data=journal"},
	{"small", []string{"-t", "ext4", "-b", "1024", "-J", "size=1"}, "data=ordered"},
	{"small-no-csum", []string{"-t", "ext4", "-b", "4096", "-O", "^metadata_csum", "-J", "size=4"}, "data=ordered"},
	{"inline-orphan-rich", []string{"-t", "ext4", "-b", "1024", "-O", "inline_data,ea_inode", "-J", "size=1"}, "data=ordered"},
}

// TestReplay compares what we see of crashed filesystems with what the kernel
// makes of them.
func TestReplay(t *testing.T) {
	for i := range len(journals) * *crashSeeds {
		j, seed := journals[i%len(journals)], i/len(journals)
		t.Run(fmt.Sprintf("%s/%d", j.name, seed), func(t *testing.T) {
			t.Parallel()
			path := makeImage(t, 96<<20, j.mkfs...)
			dir, unmount := disktest.Mount(t, path, "ext4", j.mount)
			w := &disktest.CrashWriter{T: t, Dir: dir}
			w.Base()
			w.Settle()
			w.Work(uint64(i), 400)
			w.Revoke()
			w.Escape()
			w.Work(uint64(i)+1000, 150)
			disktest.Crash(t, dir)
			unmount()
			compareCrashed(t, path, true)
		})
	}
}

// compareCrashed compares a crashed image with what the kernel recovers.
// matters says that the disktest.Tree on disk must differ from the one in the journal.
func compareCrashed(t *testing.T, path string, matters bool) {
	t.Helper()
	stale := make(disktest.Tree)
	if matters {
		stale = staleTree(t, path)
	}
	recovered := disktest.CopyImage(t, path)
	dir, unmount := disktest.Mount(t, recovered, "ext4", "ro,noatime")
	want := disktest.KernelTree(t, dir)
	unmount()
	if matters && reflect.DeepEqual(want, stale) {
		t.Error("the journal of this crash makes no difference")
	}
	fs := openFilesystem(t, path)
	transactions, fast := fs.Replayed()
	if transactions+fast == 0 {
		t.Error("nothing was replayed")
	}
	got := disktest.ReadTree(t, fs)
	disktest.CompareTrees(t, want, got)
	disktest.CheckReadsUsed(t, path, openUncached)
	disktest.CheckLocations(t, disktest.OpenImage(t, path), fs)
	t.Logf("%d transactions, %d fast commits, %d files", transactions, fast, len(got))
}

// staleTree is what the kernel sees without the journal, or nil where that is
// not even a filesystem.
func staleTree(t *testing.T, path string) disktest.Tree {
	copied := disktest.CopyImage(t, path)
	f, err := os.OpenFile(copied, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw := make([]byte, 1024)
	if _, err := f.ReadAt(raw, 1024); err != nil {
		t.Fatal(err)
	}
	// Without needs_recovery the reader does not look at the journal.
	incompat := binary.LittleEndian.Uint32(raw[0x60:])
	if incompat&4 == 0 {
		t.Fatal("the crashed filesystem does not need recovery")
	}
	binary.LittleEndian.PutUint32(raw[0x60:], incompat&^4)
	sealSuperblock(raw)
	if _, err := f.WriteAt(raw, 1024); err != nil {
		t.Fatal(err)
	}
	fs, err := ext4.Open(disktest.OpenImage(t, copied), ext4.Options{})
	if err != nil {
		return nil
	}
	all := make(disktest.Tree)
	if disktest.WalkLeniently(fs, func(path string, n disktest.Node) { all[path] = n }) != nil {
		return nil
	}
	return all
}

// TestCopyOfRunning reads a copy of an image that was made while it was mounted.
func TestCopyOfRunning(t *testing.T) {
	path := makeImage(t, 64<<20, "-t", "ext4", "-b", "4096")
	dir, _ := disktest.Mount(t, path, "ext4", "data=ordered")
	w := &disktest.CrashWriter{T: t, Dir: dir}
	w.Base()
	w.Settle()
	w.Work(7, 200)
	compareCrashed(t, disktest.CopyImage(t, path), true)
}

// TestWrittenJournal replays journals that debugfs wrote: checksums of version
// 2, which no kernel of today writes, and revoke records without use.
func TestWrittenJournal(t *testing.T) {
	for _, version := range []string{"2", "3"} {
		for _, bits := range []string{"64bit", "^64bit"} {
			t.Run("csum-v"+version+"-"+bits, func(t *testing.T) {
				path := makeImage(t, 32<<20, "-t", "ext4", "-b", "1024", "-O", bits)
				dir, unmount := disktest.Mount(t, path, "ext4", "rw")
				file := filepath.Join(dir, "file")
				if err := os.WriteFile(file, []byte(strings.Repeat("old!", 1024)), 0o644); err != nil {
					t.Fatal(err)
				}
				unmount()
				content := filepath.Join(t.TempDir(), "content")
				magic := append([]byte{0xc0, 0x3b, 0x39, 0x98}, strings.Repeat("new!", 511)...)
				if err := os.WriteFile(content, magic, 0o644); err != nil {
					t.Fatal(err)
				}
				blocks := strings.Fields(string(disktest.Run(t, "debugfs", "-R", "blocks /file", path)))
				n := len(blocks)
				script := filepath.Join(t.TempDir(), "script")
				lines := fmt.Sprintf("jo -c -v %s\njw -b %s,%s %s\njw -r %s\njw -b %s,%s %s\njc\n", version,
					blocks[n-4], blocks[n-3], content, blocks[n-4], blocks[n-2], blocks[n-1], content)
				if err := os.WriteFile(script, []byte(lines), 0o644); err != nil {
					t.Fatal(err)
				}
				disktest.Run(t, "debugfs", "-w", "-f", script, path)
				compareCrashed(t, path, true)
			})
		}
	}
}
