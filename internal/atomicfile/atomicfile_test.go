package atomicfile_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/atomicfile"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, content := range []string{"first", "second, and longer", ""} {
		if err := atomicfile.Write(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("wrote %q, and read %q, %v", content, got, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file is %v, %v", info, err)
	}
	wantOnly(t, dir, "file")
}

// What fails leaves the old content, and nothing beside it.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(path, "content"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(path, []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced")
	}
	wantOnly(t, dir, "folder")
	if err := atomicfile.Write(filepath.Join(dir, "missing", "file"), nil, 0o600); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("into a folder that is not there: %v", err)
	}
}

// Large content is whole wherever it lies in memory and however it ends, and what can
// be is not in the page cache.
func TestWriteLarge(t *testing.T) {
	buf := make([]byte, 5<<20)
	for i := range buf {
		buf[i] = byte(i * i >> 7)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, part := range [][2]int{{0, 1 << 20}, {0, 3<<20 + 1}, {0, 3<<20 - 1}, {1, 2<<20 + 1}, {511, 4<<20 + 5}, {0, 1<<20 - 1}} {
		data := buf[part[0]:part[1]]
		if err := atomicfile.Write(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		aligned := part[0] == 0 && len(data) >= 1<<20
		if n, can := cached(t, path); aligned && can && n > 1 {
			t.Errorf("%d bytes: %d pages of them are cached", len(data), n)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes from %d on: read %d others, %v", len(data), part[0], len(got), err)
		}
		wantOnly(t, dir, "file")
	}
}

// cached returns how many pages of a file are in the page cache, and whether its
// filesystem says that it can be written past it.
func cached(t *testing.T, path string) (pages int, direct bool) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN|unix.STATX_SIZE, &st); err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(st.Size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapped)
	there := make([]byte, (len(mapped)+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mapped[0])), uintptr(len(mapped)), uintptr(unsafe.Pointer(&there[0]))); errno != 0 {
		t.Fatal(errno)
	}
	for _, page := range there {
		pages += int(page & 1)
	}
	return pages, st.Mask&unix.STATX_DIOALIGN != 0 && st.Dio_offset_align > 0
}

func wantOnly(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("the folder holds %v, %v; want %s alone", entries, err, name)
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := atomicfile.Create(path, []byte("first"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Create(path, []byte("second"), 0o400); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "first" {
		t.Errorf("the file holds %q, %v", got, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("the file is %v, %v", info, err)
	}
	wantOnly(t, dir, "file")
}

// A dangling symlink is there too, and nothing is written to where it leads.
func TestCreateSymlink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("elsewhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Create(filepath.Join(dir, "link"), nil, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a symlink: %v", err)
	}
	wantOnly(t, dir, "link")
}

func TestCreateOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if atomicfile.Create(path, []byte("x"), 0o600) == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 8 created the file", won.Load())
	}
}

// A process that dies before the rename leaves what RemoveLeftovers removes, and
// nothing else is removed.
func TestRemoveLeftovers(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	old := now.Add(-time.Hour)
	for name, mtime := range map[string]time.Time{
		".file.123.tmp": old, // a leftover
		".file.456.tmp": now, // somebody is writing it
		"file":          old,
		"file.tmp":      old,
		".file":         old,
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, mtime, mtime)); err != nil {
			t.Fatal(err)
		}
	}
	if err := atomicfile.RemoveLeftovers(dir, now.Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	var names []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := []string{".file", ".file.456.tmp", "file", "file.tmp"}
	if !slices.Equal(names, want) {
		t.Errorf("left %q, want %q", names, want)
	}
	if err := atomicfile.RemoveLeftovers(filepath.Join(dir, "missing"), now); err != nil {
		t.Errorf("a missing folder: %v", err)
	}
}

// A writer killed at any moment leaves the old content or the new, and at most
// leftovers.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("ATOMICFILE_KILLED"); dir != "" {
		for i := byte(0); ; i++ {
			if err := atomicfile.Write(filepath.Join(dir, "file"), bytes.Repeat([]byte{'a' + i%26}, 1<<16), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for i := range 10 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "ATOMICFILE_KILLED="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+7*i) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		got, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // killed before the first write was done
		}
		if err != nil || len(got) != 1<<16 || bytes.Count(got, got[:1]) != len(got) {
			t.Fatalf("round %d: %d bytes that are neither the old content nor the new, %v", i, len(got), err)
		}
	}
	if err := atomicfile.RemoveLeftovers(dir, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, dir, "file")
}
