package cli

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestSharedRepository: what looks at the repository twice has it open once, under one
// lock, until the last is done with it.
func TestSharedRepository(t *testing.T) {
	w := newWorld(t)
	a := &app{stderr: t.Output(), configPath: w.config, now: time.Now}
	locks := func(want int) {
		t.Helper()
		list, err := os.ReadDir(filepath.Join(w.repo, "locks"))
		if err != nil || len(list) != want {
			t.Errorf("there are %d locks, %v; want %d", len(list), err, want)
		}
	}
	for range 2 { // and anew
		first, ctx, unlockFirst, err := a.lockRepository(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		second, _, unlockSecond, err := a.lockRepository(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if first != second {
			t.Error("it is open twice")
		}
		locks(1)
		unlockFirst()
		locks(1)
		if ctx.Err() != nil {
			t.Error("who is left may not go on")
		}
		unlockSecond()
		locks(0)
		if ctx.Err() == nil {
			t.Error("nobody holds the lock, and its context goes on")
		}
	}
}
