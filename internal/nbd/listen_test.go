package nbd_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/internal/nbd"
)

func TestListen(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, path := range []string{"s", "@s", filepath.Join(t.TempDir(), "s")} {
		l, err := nbd.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Lstat(path)
		if err != nil || st.Mode() != fs.ModeSocket|0o600 {
			t.Fatalf("%s is %v, %v", path, st, err)
		}
		if _, err := nbd.Listen(path); !errors.Is(err, fs.ErrExist) {
			t.Errorf("a socket in use was replaced: %v", err)
		}
		conn, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Errorf("a refusal has harmed the socket: %v", err)
		} else {
			conn.Close()
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	}
}

func TestListenReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	l, err := nbd.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	// What has taken the place of the socket is not removed with it.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l.Close()
	}
	if got, err := os.ReadFile(path); string(got) != "precious" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dir, ""} {
		if _, err := nbd.Listen(path); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%q: %v", path, err)
		}
	}
	for _, path := range []string{filepath.Join(dir, "no", "s"), filepath.Join(dir, string(make([]byte, 200)))} {
		if _, err := nbd.Listen(path); err == nil {
			t.Errorf("%q: listens", path)
		}
	}
	if got, err := os.ReadFile(file); string(got) != "precious" {
		t.Errorf("%q, %v", got, err)
	}
}
