package fusefs_test

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/fusefs"
)

// nobody is a user without any rights.
const nobody = 65534

// asNobody returns a command that nobody runs.
func asNobody(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return c
}

// startServer runs this program as a server at dir, and returns its input when it
// has mounted.
func startServer(t *testing.T, c *exec.Cmd, dir string) io.Closer {
	t.Helper()
	c.Env = append(os.Environ(), helperEnv+"="+dir)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = exec.Command("fusermount3", "-q", "-u", "-z", dir).Run()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "mounted\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return in
}

func program(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestKilled kills the process that serves a mount.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	c := exec.Command(program(t))
	startServer(t, c, dir)
	if _, err := os.Stat(filepath.Join(dir, "one")); err != nil {
		t.Error(err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if _, err := os.Stat(filepath.Join(dir, "two")); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("what is left answers %v", err)
	}
	if _, err := fusefs.Mount(dir, newMemFS(), fusefs.Options{}); err == nil || !strings.Contains(err.Error(), "fusermount3 -u") {
		t.Errorf("mounting over it: %v", err)
	}
	run(t, "fusermount3", "-u", dir)
	if _, err := os.Stat(filepath.Join(dir, "one")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after fusermount3: %v", err)
	}
}

// TestOrdinaryUser has somebody mount who may not call mount(2). He can read all,
// whoever owns it, and nobody else can.
func TestOrdinaryUser(t *testing.T) {
	home, err := os.MkdirTemp("", "fusefs") // one that others can get to
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	copied, err := os.ReadFile(program(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(home, "dir")
	err = errors.Join(os.WriteFile(filepath.Join(home, "program"), copied, 0o755), os.Mkdir(dir, 0o755),
		os.Chown(dir, nobody, nobody), os.Chown(home, nobody, nobody))
	if err != nil {
		t.Fatal(err)
	}
	c := asNobody(filepath.Join(home, "program"))
	in := startServer(t, c, dir)
	if out, err := asNobody("cat", filepath.Join(dir, "one")).CombinedOutput(); err != nil || string(out) != "the first inode" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := os.ReadFile(filepath.Join(dir, "one")); !errors.Is(err, unix.EACCES) {
		t.Errorf("root reads what another user has mounted: %v", err)
	}
	in.Close()
	if err := c.Wait(); err != nil {
		t.Errorf("the server ends with %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("after unmounting: %v, %v", entries, err)
	}
}

// TestOtherUsers lets others into a mount of root's: modes hold for them.
func TestOtherUsers(t *testing.T) {
	fsys := newMemFS()
	secret := newContent("secret")
	fsys.add(10, "secret", &memFile{content: secret})
	fsys.files[10].Mode = disk.ModeRegular | 0o600
	fsys.add(11, "theirs", &memFile{content: secret, Inode: disk.Inode{UID: nobody}})
	fsys.files[11].Mode = disk.ModeRegular | 0o400
	fsys.add(12, "acl", &memFile{content: secret, Inode: disk.Inode{GID: nobody},
		xattrs: []disk.Xattr{{Name: []byte("system.posix_acl_access"), Value: acl()}}})
	fsys.files[12].Mode = disk.ModeRegular | 0o640 // the mask; the group has nothing
	for _, others := range []bool{true, false} {
		m := mount(t, fsys, fusefs.Options{AllowOther: others})
		if err := os.Chmod(filepath.Dir(m.dir), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]bool{"one": others, "theirs": others, "secret": false, "acl": false} {
			if out, err := asNobody("cat", filepath.Join(m.dir, name)).CombinedOutput(); (err == nil) != want {
				t.Errorf("allow others %v: %s: %v, %s", others, name, err, out)
			}
		}
	}
}
