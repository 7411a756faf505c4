package ext4_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
)

// crash shuts a mounted filesystem down as a power cut would: nothing that is
// not on the disk yet gets there.
func crash(t testing.TB, dir string) {
	t.Helper()
	const (
		ext4IocShutdown = 0x8004587d // _IOR('X', 125, __u32)
		noLogFlush      = uint32(2)
	)
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	flags := noLogFlush
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), ext4IocShutdown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		t.Fatalf("shut down %s: %v", dir, errno)
	}
}

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
	for i, j := range journals {
		t.Run(j.name, func(t *testing.T) {
			t.Parallel()
			path := makeImage(t, 96<<20, j.mkfs...)
			dir, unmount := mountImage(t, path, j.mount)
			w := &crashWriter{t: t, dir: dir}
			w.base()
			w.settle()
			w.work(uint64(i), 400)
			w.revoke()
			w.escape()
			w.work(uint64(i)+1000, 150)
			crash(t, dir)
			unmount()
			compareCrashed(t, path, true)
		})
	}
}

// compareCrashed compares a crashed image with what the kernel recovers.
// matters says that the tree on disk must differ from the one in the journal.
func compareCrashed(t *testing.T, path string, matters bool) {
	t.Helper()
	stale := make(tree)
	if matters {
		stale = staleTree(t, path)
	}
	recovered := copyImage(t, path)
	dir, unmount := mountImage(t, recovered, "ro,noatime")
	want := kernelTree(t, dir)
	unmount()
	if matters && reflect.DeepEqual(want, stale) {
		t.Error("the journal of this crash makes no difference")
	}
	fs := openFilesystem(t, path)
	if fs.Replayed() == 0 {
		t.Error("nothing was replayed")
	}
	got := ourTree(t, fs)
	compareTrees(t, want, got)
	t.Logf("%d transactions, %d files", fs.Replayed(), len(got))
}

// staleTree is what the kernel sees without the journal, or nil where that is
// not even a filesystem.
func staleTree(t *testing.T, path string) tree {
	copied := copyImage(t, path)
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
	fs, err := ext4.Open(openImage(t, copied), ext4.Options{})
	if err != nil {
		return nil
	}
	all := make(tree)
	if walkLeniently(fs, func(path string, n node) { all[path] = n }) != nil {
		return nil
	}
	return all
}

// crashWriter changes a filesystem until it crashes.
type crashWriter struct {
	t   *testing.T
	dir string
}

func (w *crashWriter) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// base is what is there before.
func (w *crashWriter) base() {
	for i := range 10 {
		dir := filepath.Join(w.dir, fmt.Sprintf("base-%d", i))
		w.must(os.Mkdir(dir, 0o755))
		for j := range 30 {
			w.must(os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d", j)), []byte(strings.Repeat("base", j*100)), 0o600))
		}
	}
}

// settle brings all that is written so far to its place.
func (w *crashWriter) settle() { unix.Sync() }

// sync commits the running transaction to the journal, and no more.
func (w *crashWriter) sync(path string) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	w.must(err)
	defer f.Close()
	_, err = f.WriteString("x")
	w.must(err)
	w.must(f.Sync())
}

// work does random things from several goroutines, some of them synced.
func (w *crashWriter) work(seed uint64, steps int) {
	var wg sync.WaitGroup
	for g := range uint64(3) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, g))
			dir := filepath.Join(w.dir, fmt.Sprintf("work-%d-%d", seed, g))
			if err := os.Mkdir(dir, 0o755); err != nil {
				w.t.Error(err)
				return
			}
			for range steps {
				if err := w.step(r, dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrExist) {
					w.t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	w.sync(filepath.Join(w.dir, "synced"))
}

func (w *crashWriter) step(r *rand.Rand, dir string) error {
	name := func() string { return filepath.Join(dir, fmt.Sprintf("f%d", r.IntN(60))) }
	switch r.IntN(10) {
	case 0, 1, 2:
		return os.WriteFile(name(), []byte(strings.Repeat(fmt.Sprint(r.Uint64()), r.IntN(2000))), 0o640)
	case 3:
		return os.Rename(name(), name())
	case 4:
		return os.Remove(name())
	case 5:
		return os.Truncate(name(), r.Int64N(100_000))
	case 6:
		return os.Link(name(), name())
	case 7:
		sub := name() + "-dir"
		if err := os.Mkdir(sub, 0o700); err != nil {
			return os.Remove(sub)
		}
		return nil
	case 8:
		return unix.Lsetxattr(name(), "user.step", []byte(strings.Repeat("v", r.IntN(200))), 0)
	default:
		f, err := os.OpenFile(name(), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte("at some place"), r.Int64N(200_000)); err != nil {
			return err
		}
		if r.IntN(8) == 0 {
			return f.Sync()
		}
		return nil
	}
}

// revoke journals the blocks of directories, frees them, and fills the disk
// with files so that the blocks hold their content. A replay without revoke
// records would write directory entries into files.
func (w *crashWriter) revoke() {
	doomed := filepath.Join(w.dir, "doomed")
	w.must(os.Mkdir(doomed, 0o755))
	filler := w.fill()
	for i := range 400 {
		if os.Mkdir(filepath.Join(doomed, fmt.Sprint(i)), 0o755) != nil {
			break // full, as it should be
		}
	}
	w.sync(filepath.Join(w.dir, "synced"))
	w.must(os.RemoveAll(doomed))
	w.sync(filepath.Join(w.dir, "synced"))
	for i := range 40 {
		path := filepath.Join(w.dir, fmt.Sprintf("reuse-%d", i))
		if os.WriteFile(path, []byte(strings.Repeat("reuse", 8_000)), 0o644) != nil {
			break
		}
	}
	w.must(os.Remove(filler))
	w.sync(filepath.Join(w.dir, "synced"))
}

// fill leaves a few hundred blocks free, and returns the file that has the
// others.
func (w *crashWriter) fill() string {
	path := filepath.Join(w.dir, "filler")
	f, err := os.Create(path)
	w.must(err)
	defer f.Close()
	size := int64(0)
	for ; ; size += 256 << 10 {
		err := unix.Fallocate(int(f.Fd()), 0, size, 256<<10)
		if errors.Is(err, unix.EOPNOTSUPP) { // ext3
			_, err = f.Write(make([]byte, 256<<10))
		}
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		w.must(err)
	}
	w.must(f.Truncate(max(0, size-1<<20)))
	w.must(f.Sync())
	return path
}

// escape writes blocks that start with the journal's magic number.
func (w *crashWriter) escape() {
	block := append([]byte{0xc0, 0x3b, 0x39, 0x98}, make([]byte, 1020)...)
	path := filepath.Join(w.dir, "magic")
	w.must(os.WriteFile(path, []byte(strings.Repeat(string(block), 64)), 0o644))
	w.sync(filepath.Join(w.dir, "synced"))
}

// TestCopyOfRunning reads a copy of an image that was made while it was mounted.
func TestCopyOfRunning(t *testing.T) {
	path := makeImage(t, 64<<20, "-t", "ext4", "-b", "4096")
	dir, _ := mountImage(t, path, "data=ordered")
	w := &crashWriter{t: t, dir: dir}
	w.base()
	w.settle()
	w.work(7, 200)
	compareCrashed(t, copyImage(t, path), true)
}

// TestFastCommit has the journal's fast commits refused, and only those.
func TestFastCommit(t *testing.T) {
	path := makeImage(t, 64<<20, "-t", "ext4", "-b", "4096", "-O", "fast_commit")
	dir, unmount := mountImage(t, path, "rw")
	w := &crashWriter{t: t, dir: dir}
	w.base()
	w.settle() // a full commit
	full := copyImage(t, path)
	w.sync(filepath.Join(dir, "synced"))
	fast := copyImage(t, path)
	unmount()

	compareCrashed(t, full, false)
	openFilesystem(t, path)
	_, err := ext4.Open(openImage(t, fast), ext4.Options{})
	var refusal *disk.Error
	if !errors.As(err, &refusal) || !errors.Is(err, disk.ErrUnsupported) || !strings.Contains(refusal.Detail, "fast_commit") {
		t.Errorf("a fast commit gives %v", err)
	}
}

// TestWrittenJournal replays journals that debugfs wrote: checksums of version
// 2, which no kernel of today writes, and revoke records without use.
func TestWrittenJournal(t *testing.T) {
	for _, version := range []string{"2", "3"} {
		for _, bits := range []string{"64bit", "^64bit"} {
			t.Run("csum-v"+version+"-"+bits, func(t *testing.T) {
				path := makeImage(t, 32<<20, "-t", "ext4", "-b", "1024", "-O", bits)
				dir, unmount := mountImage(t, path, "rw")
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
				blocks := strings.Fields(run(t, "debugfs", "-R", "blocks /file", path))
				n := len(blocks)
				script := filepath.Join(t.TempDir(), "script")
				lines := fmt.Sprintf("jo -c -v %s\njw -b %s,%s %s\njw -r %s\njw -b %s,%s %s\njc\n", version,
					blocks[n-4], blocks[n-3], content, blocks[n-4], blocks[n-2], blocks[n-1], content)
				if err := os.WriteFile(script, []byte(lines), 0o644); err != nil {
					t.Fatal(err)
				}
				run(t, "debugfs", "-w", "-f", script, path)
				compareCrashed(t, path, true)
			})
		}
	}
}
