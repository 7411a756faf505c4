package retain_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/retain"
)

func (p place) pruneOptions() retain.PruneOptions {
	return retain.PruneOptions{Location: p.dir, PasswordFile: p.passwordFile}
}

// removeOld saves three backups that share nothing, and has a policy remove two.
func removeOld(t *testing.T, r *repository.Repository) {
	t.Helper()
	now := time.Now()
	for i := range 3 {
		save(t, r, "web", now.Add(time.Duration(i-5)*time.Hour), files{"a": uint64(i)})
	}
	results, err := retain.Apply(t.Context(), r, []retain.VM{{Name: "web", Policy: retain.Policy{Last: 1}}}, now, 0)
	if err != nil || len(results[0].Removed) != 2 {
		t.Fatalf("%+v, %v", results, err)
	}
}

func TestPrune(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	removeOld(t, r)
	// What the environment says of another repository is not meant.
	t.Setenv("RESTIC_PASSWORD", "wrong")
	t.Setenv("RESTIC_REPOSITORY_FILE", "/nowhere")
	got, err := retain.Prune(t.Context(), r, p.pruneOptions())
	if err != nil {
		t.Fatal(err)
	}
	if freed := got.Before - got.After; freed < 2*fileSize || got.After < fileSize || got.After != p.packed(t) {
		t.Errorf("%d bytes before, %d after, %d are there", got.Before, got.After, p.packed(t))
	}
	if text := strings.Join(got.Output, "\n"); !strings.Contains(text, "done") || got.Duration <= 0 {
		t.Errorf("restic said %q in %s", text, got.Duration)
	}
	t.Setenv("RESTIC_PASSWORD", "")
	t.Setenv("RESTIC_REPOSITORY_FILE", "")
	p.check(t)
}

// The parity of packs that a prune removes goes with them.
func TestPruneParity(t *testing.T) {
	p := newPlace(t)
	r, err := repository.Open(t.Context(), local.New(p.dir), []byte(password), repository.Options{Parity: 5})
	if err != nil {
		t.Fatal(err)
	}
	removeOld(t, r)
	names := func(folder string) (out []string) {
		paths, err := filepath.Glob(filepath.Join(p.dir, folder, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			out = append(out, filepath.Base(path))
		}
		return out
	}
	before := names("ecc")
	if len(before) < 3 || !slices.Equal(before, names("data")) {
		t.Fatalf("packs %v, parity of %v", names("data"), before)
	}
	if _, err := retain.Prune(t.Context(), r, p.pruneOptions()); err != nil {
		t.Fatal(err)
	}
	// What restic packed anew gets its parity from verify.
	for _, name := range names("ecc") {
		if !slices.Contains(names("data"), name) {
			t.Errorf("the parity of %s is left", name)
		}
	}
	if len(names("data")) == 0 || len(names("ecc")) >= len(before) {
		t.Errorf("%d packs, parity of %d", len(names("data")), len(names("ecc")))
	}
	p.check(t)
}

// fakeRestic is a program that writes what it was called with, and waits for
// SIGINT if it is told to.
func fakeRestic(t *testing.T, script string) (program, log string) {
	t.Helper()
	dir := t.TempDir()
	program, log = filepath.Join(dir, "restic"), filepath.Join(dir, "log")
	if err := os.WriteFile(program, []byte("#!/bin/bash\nexec 3>"+log+"\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return program, log
}

func TestPruneFails(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	removeOld(t, r)
	before := p.packed(t)
	opts := p.pruneOptions()
	opts.Program = "restic-that-nobody-has"
	if _, err := retain.Prune(t.Context(), r, opts); !errors.Is(err, retain.ErrNoRestic) {
		t.Errorf("without restic: %v", err)
	}
	opts = p.pruneOptions()
	opts.PasswordFile = filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(opts.PasswordFile, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := retain.Prune(t.Context(), r, opts)
	if err == nil || !strings.Contains(err.Error(), "wrong password") || got == nil || len(got.Output) == 0 {
		t.Errorf("with a wrong password: %+v, %v", got, err)
	}
	l, err := r.Lock(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := retain.Prune(t.Context(), r, p.pruneOptions()); !errors.Is(err, repository.ErrLocked) {
		t.Errorf("while others work: %v", err)
	}
	if err := l.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := p.packed(t); after != before {
		t.Errorf("a prune that failed changed %d bytes to %d", before, after)
	}
	// What it says is cut and escaped.
	opts.Program, _ = fakeRestic(t, `for i in {1..2000}; do echo "line $i of many"; done; printf 'bad \e[31m news\n'; exit 1`)
	got, err = retain.Prune(t.Context(), r, opts)
	if err == nil || strings.Contains(err.Error(), "\x1b") || !strings.Contains(err.Error(), "news") || len(got.Output) > 100 {
		t.Errorf("%d lines, %v", len(got.Output), err)
	}
}

// Nobody sees the password in the list of processes, and a prune that is called
// off is asked to stop.
func TestPruneCalledOff(t *testing.T) {
	p := newPlace(t)
	opts := p.pruneOptions()
	var log string
	opts.Program, log = fakeRestic(t, `trap 'echo interrupted >&3; exit 130' INT
{ echo "$@"; env; echo begun; } >&3; while :; do sleep 0.05; done`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := retain.Prune(ctx, p.open(t), opts)
		done <- err
	}()
	said := func() string {
		text, _ := os.ReadFile(log) // not there yet
		return string(text)
	}
	for deadline := time.Now().Add(time.Minute); !strings.Contains(said(), "begun"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("restic was not run")
		}
	}
	if text := said(); strings.Contains(text, password) || !strings.Contains(text, "RESTIC_PASSWORD_FILE="+p.passwordFile) {
		t.Errorf("restic was called with %s", text)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("called off: %v", err)
	}
	if !strings.Contains(said(), "interrupted") {
		t.Error("restic was not asked to stop")
	}
	if left := p.files(t, "locks"); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// Whoever waits for others gets the lock when they are done, and stops waiting
// when called off.
func TestPatience(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	nothing := func(context.Context) error { return nil }
	l, err := r.Lock(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := retain.Exclusively(t.Context(), r, time.Millisecond, nothing); !errors.Is(err, repository.ErrLocked) {
		t.Errorf("without patience: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(500*time.Millisecond, cancel)
	if err := retain.Exclusively(ctx, r, time.Hour, nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("called off: %v", err)
	}
	time.AfterFunc(500*time.Millisecond, func() {
		if err := l.Unlock(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := retain.Exclusively(t.Context(), r, time.Hour, nothing); err != nil {
		t.Errorf("with patience: %v", err)
	}
}

// A process that backs up, pins, removes and prunes is killed at any moment, its
// restic with it. What is left is whole, what was pinned and what is newest is
// there, and nothing is locked.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("RETAIN_KILLED"); dir != "" {
		upkeepForever(t, place{dir: dir, passwordFile: os.Getenv("RETAIN_PASSWORD_FILE")})
		return
	}
	p := newPlace(t)
	pinned := save(t, p.open(t), "web", time.Now().Add(-time.Hour), files{"a": 1, "b": 2}, backup.TagPinned)
	for i := range 5 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "RETAIN_KILLED="+p.dir, "RETAIN_PASSWORD_FILE="+p.passwordFile)
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = &said, &said
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(400+470*i) * time.Millisecond)
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if _ = cmd.Wait(); !cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
			t.Fatalf("kill %d: it ended before: %s", i, said.String())
		}

		r := p.open(t)
		vms := []retain.VM{{Name: "web", Policy: retain.Policy{Last: 2}}}
		results, err := retain.Apply(t.Context(), r, vms, time.Now(), 0) // the dead one's locks are in nobody's way
		if err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
		if _, err := r.LoadSnapshot(t.Context(), pinned.ID); err != nil {
			t.Errorf("kill %d: the pinned backup: %v", i, err)
		}
		if n := results[0].Newest(); n == nil {
			t.Errorf("kill %d: no good backup is left", i)
		}
		p.check(t)
	}
	if _, err := retain.Prune(t.Context(), p.open(t), p.pruneOptions()); err != nil {
		t.Error(err)
	}
	p.check(t)
	if n := len(p.ids(t)); n < 2 {
		t.Errorf("%d backups are left: the process that was killed did nothing", n)
	}
}

// upkeepForever does what rounds do until it is killed.
func upkeepForever(t *testing.T, p place) {
	r := p.open(t)
	for i := uint64(os.Getpid()) << 16; ; i++ {
		s := save(t, r, "web", time.Now(), files{"a": i, "b": i / 2, "c": 3})
		err := retain.Exclusively(t.Context(), r, 0, func(ctx context.Context) error {
			tags, err := backup.WithNote(s, fmt.Sprintf("night %d", i))
			if err != nil {
				return err
			}
			_, err = r.SetTags(ctx, s, tags)
			return err
		})
		if err == nil {
			_, err = retain.Apply(t.Context(), r, []retain.VM{{Name: "web", Policy: retain.Policy{Last: 2}}}, time.Now(), 0)
		}
		if err == nil && i%3 == 2 {
			_, err = retain.Prune(t.Context(), r, p.pruneOptions())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
