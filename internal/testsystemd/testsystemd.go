//go:build linux

// Package testsystemd boots a real systemd for tests, in a container of its own:
// process 1 of its PID namespace, a cgroup2 tree, a system bus, and the host's
// own root filesystem below an overlay in memory, so that all that is installed
// on the host is there, and nothing that a test does to it stays.
//
//	s := testsystemd.Start(t, testsystemd.Options{Bind: []string{dir}})
//	s.Write("/etc/systemd/system/web.service", unit)
//	s.Run("systemctl", "daemon-reload")
//	conn, err := systemd.Connect(s.Bus) // from outside, as drydock would
//
// /etc/systemd/system is empty at first, and /tmp is the container's own: files
// that the test and the container share lie in the folders of Options.Bind. The
// boot goes up to basic.target. It takes about a second.
//
// After the test, or the death of the test process, no process and no mount is
// left: everything is a child of one PID namespace that the kernel ends. It needs
// root, systemd-nspawn, dbus-daemon, util-linux and overlayfs, fails the test
// where one is missing, and does not need a systemd on the host.
package testsystemd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/testprocess"
)

// bootTimeout is how long the boot may take, on a machine that is busy, before the test fails.
const bootTimeout = 5 * time.Minute

// Options say what the container is given.
type Options struct {
	// Bind are the host's folders that the container sees under the same
	// path, and may write to.
	Bind []string
	// HostNetwork puts the container into the test's network, so that the
	// ports of guests can be reached from both. Otherwise it has a loopback of
	// its own.
	HostNetwork bool
}

// System is a systemd that has booted.
type System struct {
	// Bus is the D-Bus address of its system bus, from outside.
	Bus string
	// Root is its root folder, from outside.
	Root string
	// PID is its process 1, as the host counts.
	PID int

	t testing.TB
}

// setup makes the container, as process 1 of new PID and mount namespaces. It
// gets the folder to work in and nspawn's arguments.
//
// The cgroup2 tree is mounted alone, since hosts with both versions have it
// elsewhere, and the container gets a cgroup of its own: nspawn names those
// below it always the same.
const setup = `
set -eu
dir=$1 cgroup=$2; shift 2
mount -t proc proc /proc
mount -t tmpfs tmpfs "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
find "$dir/root/etc/systemd/system" -mindepth 1 -delete
tr -d - < /proc/sys/kernel/random/uuid > "$dir/root/etc/machine-id"
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup$cgroup"
echo 0 > "/sys/fs/cgroup$cgroup/cgroup.procs"
exec systemd-nspawn "$@" -D "$dir/root" systemd.unit=basic.target
`

// cleanup removes the empty cgroups that the container had, and those of test
// processes that were killed.
const cleanup = `
set -eu
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
find "/sys/fs/cgroup$1" -depth -type d -exec rmdir {} ";"
for dir in "/sys/fs/cgroup${1%/*}"/drydock-test-*-*; do
	pid=${dir##*/drydock-test-}
	if [ -d "$dir" ] && [ ! -d "/proc/${pid%-*}" ]; then
		find "$dir" -depth -type d -exec rmdir {} ";" || true
	fi
done
`

// Start boots a systemd. It is gone after the test.
func Start(t testing.TB, o Options) *System {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("testsystemd needs root")
	}
	cgroup := ownCgroup(t) + fmt.Sprintf("/drydock-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	args := []string{"-c", setup, "setup", t.TempDir(), cgroup,
		"--quiet", "--register=no", "--keep-unit", "--boot", "--console=passive",
		// A host has no such filter, and Landlock is not in the usual one.
		"--system-call-filter=@known"}
	if !o.HostNetwork {
		args = append(args, "--private-network")
	}
	for _, dir := range o.Bind {
		args = append(args, "--bind="+strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(dir))
	}
	var output bytes.Buffer
	cmd := exec.Command("sh", args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		// So that nothing is left when the test process is killed.
		Pdeathsig: syscall.SIGKILL,
	}
	ended := testprocess.Start(t, cmd)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if out, err := private(cleanup, cgroup).CombinedOutput(); err != nil {
			t.Errorf("remove the cgroups: %v\n%s", err, out)
		}
	})
	s := &System{t: t}
	s.await(cmd.Process.Pid, ended, &output)
	t.Cleanup(func() {
		if t.Failed() {
			log, err := s.Command(context.Background(), "journalctl", "--no-pager", "-n", "200").CombinedOutput()
			t.Logf("journal of the container (%v):\n%s", err, log)
		}
	})
	return s
}

// private is a shell script in a mount namespace of its own.
func private(script string, args ...string) *exec.Cmd {
	cmd := exec.Command("sh", append([]string{"-c", script, "sh"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd
}

// ownCgroup is the cgroup2 of this process.
func ownCgroup(t testing.TB) string {
	t.Helper()
	list, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(strings.TrimSpace(path), "/")
		}
	}
	t.Fatal("this kernel has no cgroup2")
	return ""
}

// await waits until systemd has booted as far as basic.target.
func (s *System) await(nspawn int, ended <-chan struct{}, output *bytes.Buffer) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	state := ""
	for state != "active" {
		select {
		case <-ended:
			s.t.Fatalf("the container ended:\n%s", output.String())
		case <-ctx.Done():
			s.t.Fatalf("systemd has not booted in %s: %s", bootTimeout, state)
		case <-time.After(50 * time.Millisecond):
		}
		if s.PID == 0 {
			s.find(nspawn)
			continue
		}
		out, _ := s.Command(ctx, "systemctl", "is-active", "basic.target").CombinedOutput()
		state = strings.TrimSpace(string(out))
	}
}

// find looks for process 1 of the container, the child of nspawn.
func (s *System) find(nspawn int) {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", nspawn, nspawn))
	if err != nil {
		return
	}
	for _, child := range strings.Fields(string(children)) {
		root := "/proc/" + child + "/root"
		if _, err := os.Stat(root + "/run/dbus/system_bus_socket"); err != nil {
			continue
		}
		if _, err := fmt.Sscan(child, &s.PID); err != nil {
			continue
		}
		s.Root, s.Bus = root, "unix:path="+root+"/run/dbus/system_bus_socket"
	}
}

// Command is a command that runs inside the container, as root.
func (s *System) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	enter := []string{"--target", fmt.Sprint(s.PID), "--all", "--root", "--wdns=/", "--", name}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	// What is in the environment, PATH aside, speaks of the host.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "SYSTEMD_PAGER=cat", "SYSTEMD_COLORS=0"}
	return cmd
}

// Run runs a command inside the container and returns what it printed. The test
// fails if it does.
func (s *System) Run(name string, args ...string) string {
	s.t.Helper()
	out, err := s.Command(context.Background(), name, args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Write writes a file of the container, and the folders on the way to it.
func (s *System) Write(path, content string) {
	s.t.Helper()
	path = filepath.Join(s.Root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
}
