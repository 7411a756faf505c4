package repository_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
)

// openAt opens the place with a clock that is off.
func (p place) openAt(t *testing.T, off time.Duration) *repository.Repository {
	t.Helper()
	r, err := repository.Open(t.Context(), local.New(p.dir), []byte(password), repository.Options{
		Now: func() time.Time { return time.Now().Add(off) },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.SetLockTimes(time.Hour, time.Millisecond, 25*time.Minute)
	return r
}

func lock(t *testing.T, r *repository.Repository, exclusive bool) *repository.Lock {
	t.Helper()
	l, err := r.Lock(t.Context(), exclusive)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLocks(t *testing.T) {
	p := newPlace(t)
	r := p.create(t)
	a, b := lock(t, r, false), lock(t, p.open(t), false)
	_, err := r.Lock(t.Context(), true)
	var locked *repository.LockedError
	if !errors.As(err, &locked) || !errors.Is(err, repository.ErrLocked) {
		t.Fatalf("exclusive beside shared: %v", err)
	}
	host, _ := os.Hostname()
	if h := locked.Holder; h.PID != os.Getpid() || h.Hostname != host || h.Username == "" || time.Since(h.Time) > time.Hour || h.Exclusive {
		t.Errorf("the holder is %+v", h)
	}
	for _, l := range []*repository.Lock{a, b, a} {
		if err := l.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
	}
	c := lock(t, r, true)
	_, err = r.Lock(t.Context(), false)
	wantError(t, err, repository.ErrLocked)
	// A cancelled owner still gives its lock back.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Unlock(ctx); err != nil {
		t.Error(err)
	}
	if c.Context().Err() == nil || errors.Is(context.Cause(c.Context()), repository.ErrLockLost) {
		t.Errorf("after Unlock the context says %v", context.Cause(c.Context()))
	}
	if files := p.files(t, "locks"); len(files) != 0 {
		t.Errorf("left %v", files)
	}
}

// Restic stays out while we hold an exclusive lock, and comes in beside a shared
// one.
func TestResticHonoursOurs(t *testing.T) {
	p := newPlace(t)
	r := p.create(t)
	l := lock(t, r, true)
	out, err := p.command(t, "backup", p.passwordFile).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "locked exclusively by PID "+fmt.Sprint(os.Getpid())) {
		t.Errorf("restic backup beside an exclusive lock: %v\n%s", err, out)
	}
	if err := l.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	l = lock(t, r, false)
	p.restic(t, "backup", p.passwordFile)
	out, err = p.command(t, "prune").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "already locked by PID") {
		t.Errorf("restic prune beside a shared lock: %v\n%s", err, out)
	}
	p.restic(t, "unlock") // removes stale locks only
	if len(p.files(t, "locks")) != 1 {
		t.Error("restic took our lock for stale")
	}
	if err := l.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
}

// We stay out while restic works; and when it was killed, come in.
func TestWeHonourRestics(t *testing.T) {
	p := newPlace(t)
	r := p.create(t)
	// It holds a shared lock while it waits for standard input.
	cmd := p.command(t, "backup", "--stdin")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	// Its file has another name until it is whole.
	there := func() bool {
		return slices.ContainsFunc(p.files(t, "locks"), func(path string) bool { return backend.ValidName(filepath.Base(path)) })
	}
	for deadline := time.Now().Add(30 * time.Second); !there(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("restic takes no lock")
		}
	}
	_, err = r.Lock(t.Context(), true)
	var locked *repository.LockedError
	if !errors.As(err, &locked) || locked.Holder.PID != cmd.Process.Pid {
		t.Errorf("exclusive while restic works: %v", err)
	}
	l := lock(t, r, false)
	if err := l.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if len(p.files(t, "locks")) != 1 {
		t.Error("restic left no lock")
	}
	l = lock(t, r, true)
	if err := l.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
	if files := p.files(t, "locks"); len(files) != 0 {
		t.Errorf("left %v", files)
	}
}

// What this process holds is never stale, however old it looks.
func TestOldLock(t *testing.T) {
	p := newPlace(t)
	p.create(t)
	l := lock(t, p.openAt(t, -time.Hour), true)
	_, err := p.openAt(t, time.Hour).Lock(t.Context(), false)
	wantError(t, err, repository.ErrLocked)
	if err := l.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
}

// A lock is refreshed, and its file is another one then.
func TestRefresh(t *testing.T) {
	p := newPlace(t)
	r := p.create(t)
	r.SetLockTimes(20*time.Millisecond, time.Millisecond, time.Hour)
	l := lock(t, r, true)
	first := p.files(t, "locks")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if files := p.files(t, "locks"); len(files) == 1 && files[0] != first[0] {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the lock is not refreshed")
		}
	}
	if err := l.Context().Err(); err != nil {
		t.Errorf("the lock was lost: %v", context.Cause(l.Context()))
	}
	if err := l.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
	if files := p.files(t, "locks"); len(files) != 0 {
		t.Errorf("left %v", files)
	}
}

// Whoever loses the lock is told.
func TestLockLost(t *testing.T) {
	p := newPlace(t)
	r := p.create(t)
	r.SetLockTimes(500*time.Millisecond, time.Millisecond, time.Hour)
	l := lock(t, r, false)
	for l.Context().Err() == nil {
		// A lock that is refreshed between restic's look and its removal is
		// not lost: then again.
		p.restic(t, "unlock", "--remove-all")
		select {
		case <-l.Context().Done():
		case <-time.After(2 * time.Second):
		}
	}
	wantError(t, context.Cause(l.Context()), repository.ErrLockLost)
	wantError(t, l.Unlock(t.Context()), repository.ErrLockLost)
}

// A lock that cannot be read may be anybody's, until it is so old that nobody can
// hold it.
func TestDamagedLock(t *testing.T) {
	p := newPlace(t)
	r := p.create(t)
	l := lock(t, r, false)
	path := p.files(t, "locks")[0]
	change(t, path, flip)
	_, err := r.Lock(t.Context(), false)
	wantError(t, err, repository.ErrDamaged)
	if err == nil || !strings.Contains(err.Error(), "unlock --remove-all") {
		t.Errorf("no hint: %v", err)
	}
	if err := l.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
	// An upload that died left an empty file, which is nobody's.
	empty := filepath.Join(p.dir, "locks", strings.Repeat("00", 32))
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l = lock(t, r, true)
	if err := l.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDamagedLockOfLongAgo(t *testing.T) {
	p := newPlace(t)
	p.create(t)
	var warned []error
	r, err := repository.Open(t.Context(), local.New(p.dir), []byte(password), repository.Options{
		Warn: func(err error) { warned = append(warned, err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(p.dir, "locks", strings.Repeat("01", 32))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	for age, removed := range map[time.Duration]bool{29 * time.Minute: false, 31 * time.Minute: true} {
		if err := os.WriteFile(path, []byte("no lock at all"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		warned = nil
		l, err := r.Lock(t.Context(), true)
		if !removed {
			wantError(t, err, repository.ErrDamaged)
			if len(warned) != 0 {
				t.Errorf("%s old: warned of %v", age, warned)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s old: %v", age, err)
		}
		if len(warned) != 1 || !errors.Is(warned[0], repository.ErrDamaged) || !strings.Contains(warned[0].Error(), "01010101") {
			t.Errorf("%s old: warned of %v", age, warned)
		}
		if err := l.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
		if left := p.files(t, "locks"); len(left) != 0 {
			t.Errorf("left %v", left)
		}
	}
}

// A lock file that cannot be removed does not outlive the next try.
func TestUnlockFails(t *testing.T) {
	be := &watched{}
	r := createIn(t, be, repository.Options{})
	r.SetLockTimes(10*time.Millisecond, time.Millisecond, time.Hour)
	gone := errors.New("connection refused")
	var fail atomic.Bool
	be.before = func(op string, h backend.Handle) error {
		if op == "remove" && fail.Load() {
			return gone
		}
		return nil
	}
	l := lock(t, r, true)
	fail.Store(true)
	for be.count(t, backend.LockFile) < 3 {
		time.Sleep(time.Millisecond)
	}
	fail.Store(false)
	if err := l.Context().Err(); err != nil {
		t.Errorf("the lock was lost: %v", context.Cause(l.Context()))
	}
	if err := l.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
	if n := be.count(t, backend.LockFile); n != 0 {
		t.Errorf("left %d lock files", n)
	}
}

// keeping is storage that stores a lock file and says that it did not.
type keeping struct{ backend.Backend }

var errAnswer = errors.New("no answer")

func (k keeping) Save(ctx context.Context, h backend.Handle, data []byte) error {
	err := k.Backend.Save(ctx, h, data)
	if h.Type == backend.LockFile && err == nil {
		return errAnswer
	}
	return err
}

func TestLockThatCannotBeMadeIsInNobodysWay(t *testing.T) {
	p := newPlace(t)
	p.create(t)
	r, err := repository.Open(t.Context(), keeping{local.New(p.dir)}, []byte(password), repository.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Lock(t.Context(), false)
	wantError(t, err, errAnswer)
	if left := p.files(t, "locks"); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}
