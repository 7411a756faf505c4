package newimage

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// TestTimeExtra: the vectors of Documentation/filesystems/ext4/inodes.rst.
func TestTimeExtra(t *testing.T) {
	for _, c := range []struct {
		time disk.Time
		want uint32
	}{
		{disk.Time{Sec: 0}, 0},
		{disk.Time{Sec: -1 << 31}, 0},
		{disk.Time{Sec: 1<<31 - 1}, 0},
		{disk.Time{Sec: 1 << 31}, 1},
		{disk.Time{Sec: 1<<32 + 1<<31 - 1}, 1},
		{disk.Time{Sec: 1<<32 + 1<<31}, 2},
		{disk.Time{Sec: 1<<33 + 1<<31, Nsec: 1}, 3 | 1<<2},
		{disk.Time{Sec: -5, Nsec: 999_999_999}, 999_999_999 << 2},
	} {
		if got := timeExtra(c.time); got != c.want {
			t.Errorf("%+v: %#x, want %#x", c.time, got, c.want)
		}
	}
}

// TestOneAtATime: a workplace has one owner, the next one clears what is left, and
// nothing stays behind.
func TestOneAtATime(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "new.raw")
	w, err := openWorkplace(target)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.begin(1 << 20); err != nil {
		t.Fatal(err)
	}
	commands, err := w.script()
	if err != nil {
		t.Fatal(err)
	}
	commands.Close()
	if _, err := openWorkplace(target); !errors.Is(err, ErrTarget) {
		t.Errorf("a second one: %v", err)
	}
	w.lock.Release() // as when the process is killed
	again, err := openWorkplace(target)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.begin(2 << 20); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(again.image); err != nil || st.Size() != 2<<20 {
		t.Errorf("%v, %v", st, err)
	}
	if _, err := os.Lstat(again.commands); !os.IsNotExist(err) {
		t.Errorf("the commands of the one that was killed: %v", err)
	}
	again.close()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
