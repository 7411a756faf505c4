package writervm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/printed"
	"github.com/drydock-vm/drydock/internal/writervm/guest"
)

const (
	program = "qemu-system-x86_64"
	// memory of the machine, in MiB. What is written waits in it for the disk.
	memory = "768"
	// maxSaid is how much is kept of what QEMU and the kernel print last, and maxLines
	// how many lines of it an error shows.
	maxSaid  = 4 << 10
	maxLines = 4
	// waitDelay is how long QEMU may keep its pipes open once it was killed.
	waitDelay = 5 * time.Second
	// killWait is how long it may take to end then.
	killWait = 30 * time.Second
)

// The accelerators.
const (
	KVM = "kvm"
	TCG = "tcg"
)

// machine is a machine that was started.
type machine struct {
	link   net.Conn
	cmd    *exec.Cmd
	said   *printed.Tail
	ended  chan struct{} // closed when QEMU has ended
	status error         // of it, once it has
}

// The descriptors that QEMU is given, behind those of every program.
const (
	fdLink = 3 + iota
	fdKernel
	fdInitramfs
	fdImage
)

// arguments are those of QEMU. Names of files are not among them: it gets all open, and
// is a user who could open none. Flushes of the guest are left out: who has the image brings it
// to the disk when it is whole, and throws it away if the host crashes before. Of a timer
// that is late, because the host is busy, the kernel would think that it is broken.
//
// Zeros that are written are holes in the image: there are many if no content is.
func arguments(accelerator string, work []string) []string {
	cpu := map[string]string{KVM: "host"}[accelerator]
	if cpu == "" {
		cpu = "max"
	}
	return []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", "pc", "-accel", accelerator, "-cpu", cpu, "-smp", "2", "-m", memory,
		"-kernel", fmt.Sprintf("/proc/self/fd/%d", fdKernel), "-initrd", fmt.Sprintf("/proc/self/fd/%d", fdInitramfs),
		"-append", "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off selinux=0 apparmor=0 audit=0 rdinit=/init -- " + guest.Verb + " " + strings.Join(work, " "),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-add-fd", fmt.Sprintf("set=1,fd=%d", fdImage),
		"-blockdev", "driver=file,node-name=file,filename=/dev/fdset/1,discard=unmap,cache.no-flush=on",
		"-blockdev", "driver=raw,node-name=disk,file=file,discard=unmap,detect-zeroes=unmap,cache.no-flush=on",
		"-device", "virtio-blk-pci,drive=disk,werror=report,rerror=report",
		"-chardev", fmt.Sprintf("socket,id=link,fd=%d", fdLink),
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=link,nr=1",
	}
}

// start starts the machine.
func start(ctx context.Context, accelerator string, work []string, f *files) (*machine, error) {
	link, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	m := &machine{link: link, said: &printed.Tail{Limit: maxSaid}, ended: make(chan struct{})}
	m.cmd = exec.CommandContext(ctx, program, arguments(accelerator, work)...)
	m.cmd.Env = []string{"LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	m.cmd.Dir = "/"
	m.cmd.ExtraFiles = []*os.File{theirs, f.kernel, f.initramfs, f.image}
	m.cmd.Stdout, m.cmd.Stderr, m.cmd.WaitDelay = m.said, m.said, waitDelay
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: nobody()}
	// On a thread that no goroutine is locked to: the runtime keeps those, and the
	// kernel kills QEMU when the thread ends that started it.
	result := make(chan error)
	go func() { result <- m.cmd.Start() }()
	if err := <-result; err != nil {
		link.Close()
		if errors.Is(err, exec.ErrNotFound) {
			err = fmt.Errorf("%w (apt-get install qemu-system-x86)", err)
		}
		return nil, fmt.Errorf("start the machine that writes the image: %w", err)
	}
	go func() {
		m.status = m.cmd.Wait()
		close(m.ended)
	}()
	return m, nil
}

// nobody is the user that QEMU is, if drydock is root: one who may do nothing but open
// /dev/kvm, where a group may do that.
func nobody() *syscall.Credential {
	const id = 65534 // of the kernel's overflow user, which Linux distributions call nobody
	if os.Geteuid() != 0 {
		return nil
	}
	c := &syscall.Credential{Uid: id, Gid: id}
	if kvm, err := os.Stat("/dev/kvm"); err == nil {
		c.Groups = []uint32{kvm.Sys().(*syscall.Stat_t).Gid}
	}
	return c
}

func socketpair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to a machine: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "link"), os.NewFile(uintptr(fds[1]), "link")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("connect to a machine: %w", err)
	}
	return conn, theirs, nil
}

// stop ends the machine if it has not ended, and waits for that. A QEMU that hangs in the
// kernel cannot be ended.
func (m *machine) stop() error {
	m.link.Close()
	_ = m.cmd.Process.Kill() // it may have ended
	select {
	case <-m.ended:
		return nil
	case <-time.After(killWait):
		return fmt.Errorf("the machine that writes the image hangs in the kernel (process %d): it was killed, and does not end", m.cmd.Process.Pid)
	}
}

// explain adds to an error what QEMU and the kernel printed last.
func (m *machine) explain(err error) error {
	text, _ := m.said.Bytes()
	lines := strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' || r == '\r' })
	lines = lines[max(0, len(lines)-maxLines):]
	for i, l := range lines {
		lines[i] = escape.Line(strings.TrimSpace(l))
	}
	if len(lines) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s", err, strings.Join(lines, "; "))
}
