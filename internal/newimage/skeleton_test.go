package newimage

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// TestSeveralAtOnce: a second one works beside the first, and clears away what is left of
// one that was killed.
func TestSeveralAtOnce(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "web.data")
	open := func() *workplace {
		t.Helper()
		w, err := openAnyWorkplace(target)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.begin(1 << 20); err != nil {
			t.Fatal(err)
		}
		return w
	}
	first, second, third := open(), open(), open()
	if first.image == second.image || second.image == third.image {
		t.Fatalf("%s, %s and %s", first.image, second.image, third.image)
	}
	third.lock.Close() // as when the process is killed
	first.close()
	again := open()
	if again.image != first.image {
		t.Errorf("%s, want %s again", again.image, first.image)
	}
	if _, err := os.Lstat(third.image); !os.IsNotExist(err) {
		t.Errorf("of the one that was killed: %v", err)
	}
	if _, err := os.Lstat(second.image); err != nil {
		t.Errorf("of the one that works: %v", err)
	}
	again.close()
	second.close()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	var all []*workplace
	for range maxAtOnce {
		all = append(all, open())
	}
	if _, err := openAnyWorkplace(target); !errors.Is(err, ErrTarget) {
		t.Errorf("one too many: %v", err)
	}
	for _, w := range all {
		w.close()
	}
}

// TestPlacesThatMakeNoSense: what a reader says of a filesystem that lies is refused.
func TestPlacesThatMakeNoSense(t *testing.T) {
	const size = 16 * blockSize
	good := disk.Location{Offset: blockSize, Length: 2*blockSize + 1, At: 13 * blockSize}
	runs, err := addRun(nil, 7, good, size)
	if want := (Run{Offset: 13 * blockSize, Length: 3 * blockSize, Ino: 7, At: blockSize}); err != nil || len(runs) != 1 || runs[0] != want {
		t.Errorf("%+v, %v", runs, err)
	}
	for name, change := range map[string]func(*disk.Location){
		"nowhere":            func(l *disk.Location) { l.Device = -1 },
		"on another disk":    func(l *disk.Location) { l.Device = 1 },
		"with checksums":     func(l *disk.Location) { l.Sums = &disk.Checksums{} },
		"within a block":     func(l *disk.Location) { l.At-- },
		"beyond the end":     func(l *disk.Location) { l.At += blockSize },
		"longer than a disk": func(l *disk.Location) { l.Length, l.At = size+1, 0 },
	} {
		bad := good
		change(&bad)
		if runs, err := addRun(nil, 7, bad, size); !errors.Is(err, errRuns) {
			t.Errorf("%s: %+v, %v", name, runs, err)
		}
	}
	next := disk.Location{Offset: 4 * blockSize, Length: blockSize}
	for at, want := range map[int64]int{0: 2, 3 * blockSize: 2} {
		next.At = at
		if more, err := addRun(runs, 7, next, size); err != nil || len(more) != want {
			t.Errorf("at %d: %+v, %v", at, more, err)
		}
	}
	first, err := addRun(nil, 7, disk.Location{Length: blockSize, At: blockSize}, size)
	if err != nil {
		t.Fatal(err)
	}
	if joined, err := addRun(slices.Clone(first), 7, disk.Location{Offset: blockSize, Length: 1, At: 2 * blockSize}, size); err != nil || len(joined) != 1 || joined[0].Length != 2*blockSize {
		t.Errorf("what continues: %+v, %v", joined, err)
	}
	if apart, err := addRun(first, 8, disk.Location{Offset: blockSize, Length: 1, At: 2 * blockSize}, size); err != nil || len(apart) != 2 || sortRuns(apart) != nil {
		t.Errorf("of another file: %+v, %v", apart, err)
	}
	if err := sortRuns([]Run{{Offset: 2 * blockSize, Length: blockSize}, {Length: 3 * blockSize}}); !errors.Is(err, errRuns) {
		t.Errorf("a block of two: %v", err)
	}
}
