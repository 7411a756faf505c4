package writervm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/testmount"
	"github.com/drydock-vm/drydock/internal/writervm"
)

// children are the machines that this process runs.
func children(t *testing.T) (pids []int) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// nobody checks what the machine that runs may do on this host.
func nobody(t *testing.T) {
	pids := children(t)
	if len(pids) != 1 {
		t.Errorf("%d machines run, want 1", len(pids))
	}
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for _, want := range []string{"Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(string(status), want+"\n") {
				t.Errorf("the machine lacks %q: %v\n%s", want, err, status)
			}
		}
	}
}

// watched calls a function when it is read.
type watched struct {
	disk.Sparse
	call func()
}

func (w watched) ReadAt(p []byte, off int64) (int, error) {
	w.call()
	return w.Sparse.ReadAt(p, off)
}

// large is content of a size.
func large(size int) disk.Sparse {
	return treetest.Content{Data: bytes.Repeat([]byte("content."), size/8)}
}

// TestWhatGoesWrong: each is one error, at once, and no machine is left. While it runs,
// it is nobody.
func TestWhatGoesWrong(t *testing.T) {
	enough := errors.New("enough")
	for name, c := range map[string]struct {
		limit time.Duration
		want  error
		text  string
	}{
		"ended at boot":   {time.Second, enough, "enough"},
		"ended at once":   {0, enough, "enough"},
		"larger than all": {time.Hour, syscall.ENOSPC, `/file\u{1b}: write content: no space left`},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := treetest.NewFake()
			fsys.File(treetest.Root, "file\x1b", 10, watched{large(smallSize), sync.OnceFunc(func() { nobody(t) })})
			ctx, cancel := context.WithTimeoutCause(t.Context(), c.limit, enough)
			defer cancel()
			err := writervm.Write(ctx, makeImage(t, "btrfs", smallSize), "btrfs", fsys, options(t))
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v, want %v and %q", err, c.want, c.text)
			}
			if left := children(t); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
		})
	}
}

// TestFullHost: when the host has no room for the image, that is an error.
func TestFullHost(t *testing.T) {
	path := filepath.Join(testmount.Memory(t, "24m"), "image.raw")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, smallSize); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs.btrfs", "-q", path)
	f := treetest.NewFake()
	f.File(treetest.Root, "file", 10, large(64<<20))
	if err := writervm.Write(t.Context(), path, "btrfs", f, options(t)); !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.EROFS) {
		t.Errorf("error %v, want that writing fails", err)
	}
}

// fakeQEMU puts a program into the place of QEMU: a shell script. DIR in it is the folder
// that it returns, in which the user nobody may write.
func fakeQEMU(t *testing.T, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, "qemu-system-x86_64")
	err := errors.Join(
		os.WriteFile(path, []byte("#!/bin/sh\n"+strings.ReplaceAll(script, "DIR", dir)), 0o600),
		os.Chmod(path, 0o755), os.Chmod(dir, 0o777), os.Chmod(filepath.Dir(dir), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

// ready is a machine that came up.
const ready = `printf 'R\000\000\000\000' >&3; `

// TestLiars: a machine that was taken over says what it likes, and that is an error, or
// text that can be printed.
func TestLiars(t *testing.T) {
	f := treetest.NewFake()
	f.File(treetest.Root, "file", 10, treetest.Content{Data: make([]byte, 8<<20)})
	for name, c := range map[string]struct{ script, want string }{
		"leaves":             {"echo 'no \033[31mluck' >&2", `does not come up: it ended: no \u{1b}[31mluck`},
		"not ready":          {"printf 'D\\000\\000\\000\\000' >&3; exec sleep 100", "not that it is ready"},
		"done too early":     {ready + "printf 'D\\000\\000\\000\\000' >&3; exec sleep 100", "before the end"},
		"knows other words":  {ready + "printf 'x\\000\\000\\000\\000' >&3; exec sleep 100", "'x' from a machine"},
		"says too much":      {ready + "printf 'W\\377\\377\\377\\177' >&3; exec sleep 100", "more than 65536"},
		"is killed":          {ready + "kill -9 $$", "the machine that writes the image ended"},
		"half a word":        {ready + "printf 'F\\004\\000\\000\\000' >&3; exit 1", "the machine that writes the image"},
		"a broken complaint": {ready + "printf 'F\\001\\000\\000\\000x' >&3; exec sleep 100", "makes no sense"},
		"warns on and on":    {ready + "while printf 'W\\020\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000' >&3; do :; done", "more than 100 warnings"},
		"takes nothing":      {ready + "exec sleep 100", "is silent"},
		"is not well":        {ready + "exec cat <&3 >/dev/null", "is silent"},
		"only says it works": {ready + `for i in $(seq 200); do printf "P\\010\\000\\000\\000\\$(printf %03o $i)\\000\\000\\000\\000\\000\\000\\000" >&3; sleep 0.1; done; exec sleep 100`, "does not get on"},
	} {
		t.Run(name, func(t *testing.T) {
			fakeQEMU(t, c.script)
			o := options(t)
			o.Silence, o.Patience = 2*time.Second, time.Second
			warnings := 0
			o.Warn = func([]byte, string) { warnings++ }
			err := writervm.Write(t.Context(), makeImage(t, "btrfs", smallSize), "btrfs", f, o)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("error %q, want %q", err, c.want)
			}
			if warnings > 100 {
				t.Errorf("%d warnings", warnings)
			}
			if silent := c.want == "is silent"; errors.Is(err, writervm.ErrSilent) != silent {
				t.Errorf("error %q", err)
			}
			if slow := c.want == "does not get on"; errors.Is(err, writervm.ErrSlow) != slow {
				t.Errorf("error %q", err)
			}
			if left := children(t); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
		})
	}
}

// TestDoneButDeaf: a machine that says that it is done, and takes nothing any more, is
// silent.
func TestDoneButDeaf(t *testing.T) {
	fakeQEMU(t, ready+"sleep 1; printf 'D\\000\\000\\000\\000' >&3; exec sleep 100")
	f := treetest.NewFake()
	f.File(treetest.Root, "file", 10, treetest.Content{Data: make([]byte, 600<<10)}) // more than a socket holds
	o := options(t)
	o.Silence = 2 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := writervm.Write(ctx, makeImage(t, "btrfs", smallSize), "btrfs", f, o); !errors.Is(err, writervm.ErrSilent) {
		t.Errorf("%v", err)
	}
}

// hangingKVM has each QEMU hang that is to use KVM. What it returns checks that one was
// given up, if this host has KVM, and one with TCG has come.
func hangingKVM(t *testing.T) (check func()) {
	t.Helper()
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	dir := fakeQEMU(t, fmt.Sprintf(`
echo "$*" >>DIR/calls
case "$*" in *"-accel kvm"*) exec sleep 1000 ;; esac
exec %s "$@"
`, qemu))
	return func() {
		t.Helper()
		want := 1
		if kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
			kvm.Close()
			want = 2
		}
		if text, err := os.ReadFile(filepath.Join(dir, "calls")); bytes.Count(text, []byte("\n")) != want {
			t.Errorf("%v, calls %q, want %d", err, text, want)
		}
	}
}
