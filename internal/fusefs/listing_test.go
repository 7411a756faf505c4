package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// dirs is a filesystem of directories only: directory n has the names that names yields.
type dirs struct {
	disk.Filesystem
	names func(ino uint64, yield func(name string) error) error
	reads map[uint64]int
	mu    sync.Mutex
}

func (d *dirs) Info() disk.FilesystemInfo { return disk.FilesystemInfo{Type: "test"} }

func (d *dirs) ReadDir(ino uint64, yield func(disk.DirEntry) error) error {
	d.mu.Lock()
	d.reads[ino]++
	d.mu.Unlock()
	next := uint64(0)
	buf := make([]byte, 0, 300)
	return d.names(ino, func(name string) error {
		next++
		buf = append(buf[:0], name...) // used again, as readers may
		return yield(disk.DirEntry{Name: buf, Ino: next})
	})
}

func newDirs(names func(ino uint64, yield func(name string) error) error) (*dirs, listings) {
	d := &dirs{names: names, reads: make(map[uint64]int)}
	return d, newListings(d)
}

func TestFind(t *testing.T) {
	_, c := newDirs(func(_ uint64, yield func(string) error) error {
		for _, name := range []string{"b", "a\xff", "twice"} {
			if err := yield(name); err != nil {
				return err
			}
		}
		return yield("twice")
	})
	l := c.get(1)
	for name, want := range map[string]uint64{"b": 1, "a\xff": 2, "twice": 3, "a": 0, "": 0, "zz": 0} {
		if ino, ok := l.find(name); ino != want || ok != (want != 0) {
			t.Errorf("%q is %d, %v, want %d", name, ino, ok, want)
		}
	}
	if l.err != nil {
		t.Error(l.err)
	}
}

// TestForget reads more directories than are kept. Those that are used stay.
func TestForget(t *testing.T) {
	d, c := newDirs(func(_ uint64, yield func(string) error) error {
		for i := range 10_000 {
			if err := yield(fmt.Sprint(i)); err != nil {
				return err
			}
		}
		return nil
	})
	for ino := range uint64(300) {
		c.get(ino + 2)
		c.get(1)
	}
	if d.reads[1] != 1 || d.reads[301] != 1 {
		t.Errorf("the directory that is always used is read %d times, the last one %d times", d.reads[1], d.reads[301])
	}
	if c.size > maxListings || c.size < maxListings/2 || len(c.known) != c.order.Len() || len(c.known) > 150 {
		t.Errorf("%d bytes of %d directories are kept", c.size, len(c.known))
	}
	c.get(2)
	if d.reads[2] != 2 {
		t.Errorf("a directory that must have been forgotten is read %d times", d.reads[2])
	}
}

func TestListingLimits(t *testing.T) {
	long := strings.Repeat("x", maxNameLength)
	for name, c := range map[string]struct {
		names func(yield func(string) error) error
		want  error
		least int
	}{
		"entries": {func(yield func(string) error) error {
			for {
				if err := yield("x"); err != nil {
					return err
				}
			}
		}, disk.ErrLimit, disk.MaxDirEntries},
		"bytes": {func(yield func(string) error) error {
			for {
				if err := yield(long); err != nil {
					return err
				}
			}
		}, disk.ErrLimit, maxNames / maxNameLength},
		"long":  {func(yield func(string) error) error { return errors.Join(yield("x"), yield(long+"x")) }, disk.ErrCorrupt, 1},
		"empty": {func(yield func(string) error) error { return errors.Join(yield("x"), yield("")) }, disk.ErrCorrupt, 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, l := newDirs(func(_ uint64, yield func(string) error) error { return c.names(yield) })
			got := l.get(1)
			if !errors.Is(got.err, c.want) || len(got.entries) != c.least {
				t.Errorf("%d entries, %v", len(got.entries), got.err)
			}
		})
	}
}

// TestTogether asks for the same directories from several sides at once. Each is
// read once.
func TestTogether(t *testing.T) {
	d, c := newDirs(func(_ uint64, yield func(string) error) error { return yield("x") })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ino := range uint64(100) {
				if got, ok := c.get(ino + 1).find("x"); got != 1 || !ok {
					t.Errorf("inode %d, %v", got, ok)
				}
			}
		})
	}
	wg.Wait()
	for ino, n := range d.reads {
		if n != 1 {
			t.Errorf("directory %d is read %d times", ino, n)
		}
	}
}

func TestRecent(t *testing.T) {
	var r recent[[]byte]
	made := 0
	ask := func(ino uint64) {
		t.Helper()
		got, err := r.get(ino, func(ino uint64) ([]byte, error) {
			made++
			return fmt.Append(nil, ino), nil
		})
		if err != nil || !bytes.Equal(got, fmt.Append(nil, ino)) {
			t.Errorf("inode %d: %q, %v", ino, got, err)
		}
	}
	for _, ino := range []uint64{1, 2, 1, 2, 1 + recentSize, 1 + recentSize, 1} {
		ask(ino)
	}
	if made != 4 {
		t.Errorf("made %d times", made)
	}
	broken := errors.New("broken")
	if _, err := r.get(1+2*recentSize, func(uint64) ([]byte, error) { return nil, broken }); err != broken {
		t.Errorf("error %v", err)
	}
	ask(1) // has kept its place
	if made != 4 {
		t.Errorf("made %d times", made)
	}
}

func TestDeviceNumber(t *testing.T) {
	for d, want := range map[disk.Device]uint32{{Major: 8, Minor: 1}: 0x801, {Major: 4095, Minor: 0xfffff}: 0xffffffff, {Major: 0x123, Minor: 0x45678}: 0x45612378} {
		if got := deviceNumber(d); got != want {
			t.Errorf("%v is %#x, want %#x", d, got, want)
		}
	}
}
