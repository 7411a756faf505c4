//go:build linux

// Package testlibvirt runs a real libvirtd for tests, apart from the host's: in
// namespaces of its own, with its own /etc/libvirt, /var/lib/libvirt and sockets. All
// else is the host's, files and network among it.
//
//	l := testlibvirt.Start(t)
//	l.Define(xml)
//	m, err := libvirt.New(libvirt.Options{Domain: "web", Socket: l.Socket})
//
// After the test, or the death of the test process, no process and no mount is left. It
// needs root, libvirt-daemon with its QEMU driver, libvirt-clients and util-linux, and
// fails the test where one is missing.
package testlibvirt

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

// startTimeout is how long the daemon may take to answer: it tries every QEMU first.
const startTimeout = 2 * time.Minute

// Libvirt is a libvirtd that answers.
type Libvirt struct {
	// Socket is that of the daemon.
	Socket string

	t   testing.TB
	pid int // process 1 of its namespaces
}

// setup makes the daemon's world in the folder $1. The shell stays, as process 1, since
// the daemon does not wait for orphans.
const setup = `
set -eu
dir=$1
mkdir -p "$dir/etc" "$dir/lib" "$dir/log" "$dir/cache" "$dir/sockets"
cat > "$dir/etc/qemu.conf" <<END
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
user = "root"
group = "root"
END
cat > "$dir/libvirtd.conf" <<END
unix_sock_dir = "$dir/sockets"
auth_unix_rw = "none"
END
cp /etc/passwd /etc/group "$dir"
grep -q ^libvirt-qemu: "$dir/passwd" || echo libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin >> "$dir/passwd"
grep -q ^libvirt-qemu: "$dir/group" || echo libvirt-qemu:x:64055: >> "$dir/group"
mount -t proc proc /proc
mount --bind "$dir/passwd" /etc/passwd
mount --bind "$dir/group" /etc/group
mkdir -p /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /run/libvirt
mount --bind "$dir/etc" /etc/libvirt
mount --bind "$dir/lib" /var/lib/libvirt
mount --bind "$dir/log" /var/log/libvirt
mount --bind "$dir/cache" /var/cache/libvirt
mount --bind "$dir/sockets" /run/libvirt
libvirtd --config "$dir/libvirtd.conf" --pid-file "$dir/pid" &
wait
`

// Start runs a libvirtd. It is gone after the test.
func Start(t testing.TB) *Libvirt {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("testlibvirt needs root")
	}
	dir, err := os.MkdirTemp("", "lv") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	cmd := exec.Command("bash", "-c", setup, "setup", dir)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	l := &Libvirt{Socket: filepath.Join(dir, "sockets", "libvirt-sock"), t: t}
	ended := testprocess.Start(t, cmd)
	l.pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("libvirtd said:\n%s", output.Bytes())
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	l.await(ended)
	return l
}

// await waits until the daemon answers.
func (l *Libvirt) await(ended <-chan struct{}) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		out, err := l.virsh(ctx, "version").CombinedOutput()
		if err == nil {
			return
		}
		select {
		case <-ended:
			l.t.Fatal("libvirtd ended")
		case <-ctx.Done():
			l.t.Fatalf("libvirtd does not answer in %s: %s", startTimeout, out)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (l *Libvirt) virsh(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "virsh", append([]string{"-q", "-c", "qemu+unix:///system?socket=" + l.Socket}, args...)...)
}

// Virsh runs a command of virsh, which must succeed, and returns what it printed.
func (l *Libvirt) Virsh(args ...string) string {
	l.t.Helper()
	out, err := l.virsh(context.Background(), args...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("virsh %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// Define defines a domain. It returns the path of a file with the XML.
func (l *Libvirt) Define(xml string) string {
	l.t.Helper()
	path := filepath.Join(l.t.TempDir(), "domain.xml")
	if err := os.WriteFile(path, []byte(xml), 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.Virsh("define", path)
	return path
}

// Command is a command that sees the daemon's files where the host's would be, its
// socket among them.
func (l *Libvirt) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--target", fmt.Sprint(l.pid), "--mount", "--pid", "--wdns=/", "--", name}, args...)...)
}

// Files is the root folder as the daemon sees it.
func (l *Libvirt) Files() string { return fmt.Sprintf("/proc/%d/root", l.pid) }
