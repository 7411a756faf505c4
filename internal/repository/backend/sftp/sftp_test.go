package sftp_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/backendtest"
	"github.com/drydock-vm/drydock/internal/repository/backend/retry"
	"github.com/drydock-vm/drydock/internal/repository/backend/sftp"
	"github.com/drydock-vm/drydock/internal/testserver"
)

func options(s *testserver.SSHServer, dir string) sftp.Options {
	return sftp.Options{
		Place: "sftp:root@" + s.Host + ":" + dir, Host: s.Host, Port: s.Port, User: "root", Path: dir,
		Keys:  sftp.Keys{Identity: s.Identity, KnownHosts: []string{s.KnownHosts}, Home: "/nonexistent"},
		Stall: 20 * time.Second,
	}
}

func TestBackend(t *testing.T) {
	s := testserver.SSH(t)
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		return sftp.New(options(s, filepath.Join(t.TempDir(), "made", "when", "needed")))
	})
}

func TestRestic(t *testing.T) {
	s := testserver.SSH(t)
	dir := filepath.Join(t.TempDir(), "repo")
	command := fmt.Sprintf("ssh -F /dev/null -i %s -o UserKnownHostsFile=%s -p %d root@%s -s sftp", s.Identity, s.KnownHosts, s.Port, s.Host)
	backendtest.Judge(t, retry.New(sftp.New(options(s, dir)), retry.Options{}), backendtest.Place{
		Location: fmt.Sprintf("sftp://root@%s:%d/%s", s.Host, s.Port, dir),
		Flags:    []string{"-o", "sftp.command=" + command},
		Parity:   5,
	})
}

var handle = backend.Handle{Type: backend.PackFile, Name: strings.Repeat("ab", 32)}

// The layout and the modes are those of a local repository, and nothing temporary
// is left.
func TestLayout(t *testing.T) {
	s := testserver.SSH(t)
	dir := filepath.Join(t.TempDir(), "repo")
	be := sftp.New(options(s, dir))
	if err := be.Save(t.Context(), handle, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := be.Save(t.Context(), handle, []byte("x")); !errors.Is(err, backend.ErrExist) {
		t.Errorf("saved again: %v", err)
	}
	var got []string
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			got = append(got, strings.TrimPrefix(path, dir)+" "+info.Mode().String())
		}
		return err
	})
	want := []string{" drwx------", "/data drwx------", "/data/ab drwx------", "/data/ab/" + handle.Name + " -r--------"}
	if err != nil || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q, want %q, %v", got, want, err)
	}
}

func TestSweep(t *testing.T) {
	s := testserver.SSH(t)
	dir := t.TempDir()
	be := sftp.New(options(s, dir))
	if err := be.Save(t.Context(), handle, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"." + handle.Name + ".ABC.tmp", handle.Name + "-restic-temp-1234"} {
		left := filepath.Join(dir, "data", "ab", name)
		if err := os.WriteFile(left, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			before time.Time
			there  bool
		}{{time.Now().Add(-time.Hour), true}, {time.Now().Add(time.Hour), false}} {
			if err := be.Sweep(t.Context(), test.before); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(left); (err == nil) != test.there {
				t.Errorf("after a sweep of what is before %v: %v", test.before, err)
			}
		}
	}
	if _, err := be.Stat(t.Context(), handle); err != nil {
		t.Errorf("a file was swept: %v", err)
	}
}

// Each reason not to get in is one clear line, is not tried again, and says what to
// do.
func TestRefused(t *testing.T) {
	s := testserver.SSH(t)
	refused := func(name string, change func(*sftp.Options), want ...string) {
		t.Helper()
		o := options(s, t.TempDir())
		change(&o)
		_, err := sftp.New(o).Stat(t.Context(), handle)
		if !errors.Is(err, backend.ErrRefused) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q is not in %q", name, w, err)
			}
		}
	}
	empty := filepath.Join(t.TempDir(), "known_hosts")
	scan := fmt.Sprintf("ssh-keyscan -t ed25519 -p %d 127.0.0.1 >> %s", s.Port, empty)
	refused("an unknown host", func(o *sftp.Options) { o.Keys.KnownHosts = []string{empty} }, "SHA256:", scan)
	// What the error says works.
	if out, err := exec.Command("sh", "-c", scan).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	o := options(s, t.TempDir())
	o.Keys.KnownHosts = []string{empty}
	if err := sftp.New(o).Save(t.Context(), handle, nil); err != nil {
		t.Errorf("after ssh-keyscan: %v", err)
	}

	other := filepath.Join(t.TempDir(), "other")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", other).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	refused("another key", func(o *sftp.Options) { o.Keys.Identity = other }, "log in as root", "authorized_keys")
	refused("no key", func(o *sftp.Options) { o.Keys.Identity = "" }, "ssh-keygen", "repository.sftp.identity_file")
	if err := os.Chmod(other, 0o644); err != nil {
		t.Fatal(err)
	}
	refused("a key for all to read", func(o *sftp.Options) { o.Keys.Identity = other }, "chmod 600")

	s.NewHostKey(t)
	refused("another host key", func(*sftp.Options) {}, "has changed", s.KnownHosts+":1", "ssh-keygen -f "+s.KnownHosts+" -R '[127.0.0.1]:")
}

// An agent logs in where no file does.
func TestAgent(t *testing.T) {
	s := testserver.SSH(t)
	socket := filepath.Join(t.TempDir(), "agent")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = agent.Process.Kill(); _ = agent.Wait() }()
	add := func() ([]byte, error) {
		c := exec.Command("ssh-add", "-q", s.Identity)
		c.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		return c.CombinedOutput()
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out, err := add()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("ssh-add: %v\n%s", err, out)
		}
	}
	o := options(s, t.TempDir())
	o.Keys.Identity, o.Keys.Agent = "", socket
	if err := sftp.New(o).Save(t.Context(), handle, nil); err != nil {
		t.Error(err)
	}
}

func TestHangAndGone(t *testing.T) {
	s := testserver.SSH(t)
	o := options(s, t.TempDir())
	o.Stall = 500 * time.Millisecond
	be := sftp.New(o)
	if err := be.Save(t.Context(), handle, nil); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	var op *net.OpError
	if _, err := be.Stat(t.Context(), handle); err == nil || errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrRefused) {
		t.Errorf("gone: %v", err) // the connection that was there
	}
	if _, err := be.Stat(t.Context(), handle); !errors.As(err, &op) || !strings.Contains(err.Error(), "is the server up") {
		t.Errorf("gone: %v", err)
	}

	// It takes connections, and says nothing.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	o.Port = uint16(l.Addr().(*net.TCPAddr).Port)
	if _, err := sftp.New(o).Stat(t.Context(), handle); err == nil || !strings.Contains(err.Error(), "no byte moved for 500ms") {
		t.Errorf("silent: %v", err)
	}
}

// A full disk at the server is named, is not tried again, and leaves nothing.
func TestFull(t *testing.T) {
	s := testserver.SSH(t)
	dir := testserver.SmallDisk(t, 4)
	be := retry.New(sftp.New(options(s, dir)), retry.Options{Sleep: func(context.Context, time.Duration) error {
		t.Error("it was tried again")
		return nil
	}})
	err := be.Save(t.Context(), handle, make([]byte, 4<<20))
	if !errors.Is(err, backend.ErrRefused) || !strings.Contains(err.Error(), "the server's disk has") {
		t.Errorf("save: %v", err)
	}
	if err := be.Save(t.Context(), handle, make([]byte, 1000)); err != nil {
		t.Errorf("save of a small file: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "data", "ab", ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}
