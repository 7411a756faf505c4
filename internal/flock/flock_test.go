package flock_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/flock"
)

// TestMain is also the process that holds a lock until it is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("FLOCK_HOLD"); path != "" {
		if _, err := flock.Take(path, "test"); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		time.Sleep(time.Hour)
	}
	os.Exit(m.Run())
}

func take(t *testing.T, path string) *flock.Lock {
	t.Helper()
	l, err := flock.Take(path, "test")
	check(t, err)
	return l
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// heldBy wants err to say that somebody holds the lock on path, and who.
func heldBy(t *testing.T, err error, path, who string) {
	t.Helper()
	var held *flock.HeldError
	if !errors.As(err, &held) || held.Path != path || !strings.Contains(held.Holder, who) {
		t.Errorf("error %v; want one that says that %s is locked by %s", err, path, who)
	}
}

// TestDiesWithItsHolder: others are told who holds a lock, and a dead process holds none.
func TestDiesWithItsHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "FLOCK_HOLD="+path)
	out, err := c.StdoutPipe()
	check(t, err)
	check(t, c.Start())
	if s := bufio.NewScanner(out); !s.Scan() || s.Text() != "locked" {
		t.Fatalf("the holder said %q", s.Text())
	}
	_, err = flock.Take(path, "another")
	heldBy(t, err, path, fmt.Sprintf("drydock test, process %d, since ", c.Process.Pid))
	if !flock.Held(path) {
		t.Error("the lock is not held")
	}
	check(t, c.Process.Kill())
	_ = c.Wait() // killed
	if flock.Held(path) {
		t.Error("the lock of a dead process is held")
	}
	check(t, take(t, path).Release())
}

// TestOneAtATime: of goroutines that want a lock one has it at any time, also when its
// file is removed each time.
func TestOneAtATime(t *testing.T) {
	for name, giveBack := range map[string]func(*flock.Lock) error{"released": (*flock.Lock).Release, "removed": (*flock.Lock).Remove} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lock")
			var inside, rounds atomic.Int32
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					for range 5 {
						l, err := flock.Wait(t.Context(), path, "test")
						if err != nil {
							t.Error(err)
							return
						}
						if n := inside.Add(1); n != 1 {
							t.Errorf("%d have the lock", n)
						}
						time.Sleep(time.Millisecond)
						inside.Add(-1)
						rounds.Add(1)
						if err := giveBack(l); err != nil {
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
			if n := rounds.Load(); n != 20 {
				t.Errorf("the lock was had %d times", n)
			}
			if _, err := os.Lstat(path); (err == nil) != (name == "released") {
				t.Errorf("%s: %v", path, err)
			}
		})
	}
}

// TestReleaseWhileAChildHasIt: a process that was made meanwhile, and has the descriptor,
// does not keep a lock that was released.
func TestReleaseWhileAChildHasIt(t *testing.T) {
	folder := t.TempDir()
	l, err := flock.TakeFolder(folder)
	check(t, err)
	c := exec.Command("sleep", "1000")
	c.ExtraFiles = openAt(t, folder)
	check(t, c.Start())
	defer c.Wait()
	defer c.Process.Kill()
	check(t, l.Release())
	again, err := flock.TakeFolder(folder)
	check(t, err)
	check(t, again.Release())
}

// openAt returns copies of this process's descriptors of a file.
func openAt(t *testing.T, path string) (out []*os.File) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	for _, e := range list {
		var fd int
		if at, _ := os.Readlink("/proc/self/fd/" + e.Name()); at != path {
			continue
		}
		_, err := fmt.Sscan(e.Name(), &fd)
		check(t, err)
		copied, err := unix.Dup(fd)
		check(t, err)
		f := os.NewFile(uintptr(copied), path)
		t.Cleanup(func() { f.Close() })
		out = append(out, f)
	}
	if len(out) == 0 {
		t.Fatalf("%s is not open", path)
	}
	return out
}

func TestWaitEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l := take(t, path)
	defer l.Release()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errors.New("too late"))
	defer cancel()
	_, err := flock.Wait(ctx, path, "test")
	heldBy(t, err, path, fmt.Sprintf("process %d", os.Getpid()))
	if !strings.Contains(err.Error(), "too late") {
		t.Errorf("error %v", err)
	}
}

// TestNoLinkIsFollowed: what a link leads to is neither locked nor written to.
func TestNoLinkIsFollowed(t *testing.T) {
	folder := t.TempDir()
	file, link := filepath.Join(folder, "file"), filepath.Join(folder, "link")
	check(t, errors.Join(os.WriteFile(file, []byte("precious"), 0o600), os.Symlink("file", link), os.Symlink(folder, folder+"/up")))
	if _, err := flock.Take(link, "test"); err == nil {
		t.Error("a link was locked")
	}
	if _, err := flock.TakeFolder(folder + "/up"); err == nil {
		t.Error("a link to a folder was locked")
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("behind the link there is %q, %v", text, err)
	}
}

func TestNoFile(t *testing.T) {
	folder := t.TempDir()
	if _, err := flock.Take(folder, "test"); err == nil {
		t.Error("a folder is a file")
	}
	if _, err := flock.Take("/dev/null", "test"); err == nil || !strings.Contains(err.Error(), "/dev/null is no file") {
		t.Errorf("a device: %v", err)
	}
	if flock.Held(filepath.Join(folder, "none")) {
		t.Error("what is not there is held")
	}
}

// TestHeldFolder: of a folder it is not known who holds it.
func TestHeldFolder(t *testing.T) {
	folder := t.TempDir()
	l, err := flock.TakeFolder(folder)
	check(t, err)
	_, err = flock.TakeFolder(folder)
	heldBy(t, err, folder, "another process")
	check(t, l.Release())
}
