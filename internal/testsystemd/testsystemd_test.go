//go:build linux

package testsystemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/testsystemd"
)

const childEnv = "DRYDOCK_TEST_SYSTEMD_CHILD"

// Two containers do not see each other, share what is bound, and have nothing
// of the host's own units.
func TestTwoSystems(t *testing.T) {
	dir := t.TempDir()
	a := testsystemd.Start(t, testsystemd.Options{Bind: []string{dir}})
	b := testsystemd.Start(t, testsystemd.Options{HostNetwork: true})
	a.Write("/etc/systemd/system/hello.service", "[Service]\nType=oneshot\nExecStart=cp /proc/self/cgroup "+dir+"/said\n")
	a.Run("systemctl", "start", "hello.service")
	said, err := os.ReadFile(filepath.Join(dir, "said"))
	if err != nil || !strings.Contains(string(said), "/hello.service") {
		t.Errorf("the unit wrote %q, %v", said, err)
	}
	if err := b.Command(t.Context(), "systemctl", "cat", "hello.service").Run(); err == nil {
		t.Error("one container sees the units of the other")
	}
	if _, err := os.Stat("/etc/systemd/system/hello.service"); err == nil {
		t.Error("a unit came to the host")
	}
	if failed := a.Run("systemctl", "--failed", "--no-legend", "--plain"); failed != "" {
		t.Errorf("failed units: %s", failed)
	}
}

// Killing the test process takes the container with it.
func TestNothingIsLeft(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		s := testsystemd.Start(t, testsystemd.Options{})
		if err := os.WriteFile(os.Getenv(childEnv), []byte(s.Root), 0o600); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	note := filepath.Join(t.TempDir(), "root")
	child := exec.Command(os.Args[0], "-test.run=^TestNothingIsLeft$")
	child.Env = append(os.Environ(), childEnv+"="+note)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var root []byte
	for len(root) == 0 {
		time.Sleep(20 * time.Millisecond)
		root, _ = os.ReadFile(note)
	}
	if err := child.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	for { // until the test's deadline
		if _, err := os.Stat(filepath.Dir(string(root))); err != nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
