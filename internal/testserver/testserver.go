// Package testserver starts real servers on loopback that repositories can be kept
// on, for tests: rclone serve restic, OpenSSH's sshd, and versitygw for S3. They end
// with the test.
package testserver

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/testmount"
	"github.com/drydock-vm/drydock/internal/testprocess"
)

// startTime bounds the start of a server on a busy machine.
const startTime = time.Minute

// Server is a process that listens on loopback.
type Server struct {
	Address string // HOST:PORT

	t    testing.TB
	cmd  *exec.Cmd
	out  *output
	done <-chan struct{} // closed when the process has ended
}

// output is what a server prints.
type output struct {
	mu   sync.Mutex // guards what follows
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// freeAddress returns an address that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// program finds a program of a Debian package.
func program(t testing.TB, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: install Debian's package %s: %v", name, pkg, err)
	}
	return path
}

// start runs a server that will listen on address, and waits until it does.
func start(t testing.TB, address string, cmd *exec.Cmd) *Server {
	t.Helper()
	s := &Server{Address: address, t: t, cmd: cmd, out: &output{}}
	cmd.Stdout, cmd.Stderr = s.out, s.out
	cmd.WaitDelay = time.Second
	// The first process of a namespace takes all others with it: sshd's have
	// sessions of their own.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	s.done = testprocess.Start(t, cmd)
	t.Cleanup(s.Stop)
	for deadline := time.Now().Add(startTime); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			return s
		}
		select {
		case <-s.done:
			t.Fatalf("%v ended: %s", cmd.Args, s.out)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v does not listen: %s", cmd.Args, s.out)
		}
	}
}

// Stop kills the server and its children.
func (s *Server) Stop() {
	select {
	case <-s.done:
		return
	default:
	}
	_ = syscall.Kill(s.cmd.Process.Pid, syscall.SIGKILL) // it may have ended just now
	<-s.done
	if s.t.Failed() {
		s.t.Logf("%v said:\n%s", s.cmd.Args, s.out)
	}
}

// Restart kills the server and starts it anew, at the same address.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	*s = *start(s.t, s.Address, exec.Command(s.cmd.Path, s.cmd.Args[1:]...))
}

// Pause makes the server hang: its connections stay, and nothing moves on them.
func (s *Server) Pause() {
	s.t.Helper()
	pid := s.cmd.Process.Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	// Its threads go on until each has seen the signal.
	for deadline := time.Now().Add(startTime); !stopped(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%v does not stop", s.cmd.Args)
		}
	}
}

// stopped reports whether all threads of a process are.
func stopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, file := range threads {
		stat, err := os.ReadFile(file)
		// "1 (name) T …", and a name may have anything in it (proc(5)).
		if _, state, ok := bytes.Cut(stat, []byte(") ")); err == nil && (!ok || state[0] != 'T') {
			return false
		}
	}
	return true
}

// Resume ends a Pause.
func (s *Server) Resume() { _ = syscall.Kill(s.cmd.Process.Pid, syscall.SIGCONT) }

// REST starts rclone serve restic on a folder. Flags are those of rclone.
func REST(t testing.TB, dir string, flags ...string) *Server {
	t.Helper()
	address := freeAddress(t)
	args := append([]string{"serve", "restic", "--addr", address, "--config", "/dev/null", "--cache-dir", t.TempDir(), dir}, flags...)
	return start(t, address, exec.Command(program(t, "rclone", "rclone"), args...))
}

// SmallDisk mounts an empty ext4 filesystem of so many MiB, for servers whose disk is
// full. A tmpfs keeps no extended attributes before Linux 6.6, and S3 servers want them.
func SmallDisk(t testing.TB, mib int) string {
	t.Helper()
	img := filepath.Join(t.TempDir(), "disk")
	mke2fs := exec.Command("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-N", "1024", "-b", "1024", img, fmt.Sprintf("%dM", mib))
	if out, err := mke2fs.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", mke2fs, err, out)
	}
	dir, _ := testmount.Image(t, img, "")
	return dir
}
