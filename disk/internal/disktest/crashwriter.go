package disktest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Crash shuts a mounted ext4 or XFS down as a power cut would: nothing that is
// not on the disk yet gets there.
func Crash(t testing.TB, dir string) {
	t.Helper()
	const (
		iocShutdown = 0x8004587d // _IOR('X', 125, __u32), of both
		noLogFlush  = uint32(2)
	)
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	flags := noLogFlush
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), iocShutdown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		t.Fatalf("shut down %s: %v", dir, errno)
	}
}

// CrashWriter changes a filesystem until it crashes.
type CrashWriter struct {
	T   testing.TB
	Dir string
}

func (w *CrashWriter) must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}

// Base is what is there before.
func (w *CrashWriter) Base() {
	for i := range 10 {
		dir := filepath.Join(w.Dir, fmt.Sprintf("base-%d", i))
		w.must(os.Mkdir(dir, 0o755))
		for j := range 30 {
			w.must(os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d", j)), []byte(strings.Repeat("base", j*100)), 0o600))
		}
	}
}

// Settle brings all that is written so far to its place.
func (w *CrashWriter) Settle() {
	d, err := os.Open(w.Dir)
	w.must(err)
	defer d.Close()
	w.must(unix.Syncfs(int(d.Fd())))
}

// Sync commits the running transaction to the journal, and no more.
func (w *CrashWriter) Sync(path string) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	w.must(err)
	defer f.Close()
	_, err = f.WriteString("x")
	w.must(err)
	w.must(f.Sync())
}

// Work does random things from several goroutines, some of them synced.
func (w *CrashWriter) Work(seed uint64, steps int) {
	var wg sync.WaitGroup
	for g := range uint64(3) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, g))
			dir := filepath.Join(w.Dir, fmt.Sprintf("work-%d-%d", seed, g))
			if err := os.Mkdir(dir, 0o755); err != nil {
				w.T.Error(err)
				return
			}
			for range steps {
				if err := w.step(r, dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrExist) {
					w.T.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	w.Sync(filepath.Join(w.Dir, "synced"))
}

func (w *CrashWriter) step(r *rand.Rand, dir string) error {
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

// Revoke journals the blocks of directories, frees them, and fills the disk
// with files so that the blocks hold their content. A replay without revoke
// records would write directory entries into files.
func (w *CrashWriter) Revoke() {
	doomed := filepath.Join(w.Dir, "doomed")
	w.must(os.Mkdir(doomed, 0o755))
	filler := w.fill()
	for i := range 400 {
		if os.Mkdir(filepath.Join(doomed, fmt.Sprint(i)), 0o755) != nil {
			break // full, as it should be
		}
	}
	w.Sync(filepath.Join(w.Dir, "synced"))
	w.must(os.RemoveAll(doomed))
	w.Sync(filepath.Join(w.Dir, "synced"))
	for i := range 40 {
		path := filepath.Join(w.Dir, fmt.Sprintf("reuse-%d", i))
		if os.WriteFile(path, []byte(strings.Repeat("reuse", 8_000)), 0o644) != nil {
			break
		}
	}
	w.must(os.Remove(filler))
	w.Sync(filepath.Join(w.Dir, "synced"))
}

// fill leaves a few hundred blocks free, and returns the file that has the
// others.
func (w *CrashWriter) fill() string {
	path := filepath.Join(w.Dir, "filler")
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

// Escape writes blocks that start with the journal's magic number.
func (w *CrashWriter) Escape() {
	block := append([]byte{0xc0, 0x3b, 0x39, 0x98}, make([]byte, 1020)...)
	path := filepath.Join(w.Dir, "magic")
	w.must(os.WriteFile(path, []byte(strings.Repeat(string(block), 64)), 0o644))
	w.Sync(filepath.Join(w.Dir, "synced"))
}
