//go:build linux

// Package testmount has the kernel mount the images that tests have made, which needs
// root. When something has been unmounted, the kernel has let go of it: a copy of it, of
// the same UUID, can be mounted, and its file can be changed.
package testmount

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// limit is how long the kernel and other processes may take to let go of something, on a
// machine that is busy.
const limit = time.Minute

// Image mounts an image in a new folder until the test ends or unmount is called. Options
// are those of -o of mount(8). With ro nothing can write to the image, not even the kernel
// that recovers a journal.
func Image(t testing.TB, path, options string) (dir string, unmount func()) {
	t.Helper()
	var how []string
	if slices.Contains(strings.Split(options, ","), "ro") {
		how = append(how, "--read-only")
	}
	dir = t.TempDir()
	device := Loop(t, path, 0, 0, how...)
	leave := At(t, device, dir, "-o", options)
	var once sync.Once
	return dir, func() {
		once.Do(func() {
			leave()
			Detach(t, device)
		})
	}
}

// New makes a filesystem of a size, such as 32M, with a command that takes its file at the
// end, and mounts it in a new folder until the test ends.
func New(t testing.TB, size string, mkfs ...string) (dir string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	for _, args := range [][]string{{"truncate", "-s", size, path}, append(mkfs[:len(mkfs):len(mkfs)], path)} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	dir, _ = Image(t, path, "")
	return dir
}

// At mounts a device in a folder until the test ends or unmount is called. Options are
// arguments of mount(8).
func At(t testing.TB, device, dir string, options ...string) (unmount func()) {
	t.Helper()
	c := exec.Command("mount", append(options[:len(options):len(options)], device, dir)...)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", c, err, out)
	}
	var once sync.Once
	unmount = func() { once.Do(func() { leave(t, dir) }) }
	t.Cleanup(unmount)
	return unmount
}

// Memory mounts an empty filesystem of a size in a new folder until the test ends.
func Memory(t testing.TB, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	At(t, "tmpfs", dir, "-t", "tmpfs", "-o", "size="+size)
	return dir
}

// leave unmounts a folder, and waits until the kernel has let go of what was mounted, if
// it is mounted nowhere else here.
func leave(t testing.TB, dir string) {
	t.Helper()
	// Of its own folder a filesystem that was shut down may say no more than EIO.
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	real := filepath.Join(parent, filepath.Base(dir))
	var m mount
	for _, other := range mounts("/proc/thread-self/mountinfo") {
		if other.point == real {
			m = other // what was mounted last
		}
	}
	await(t, "unmount "+dir, func() error { return unix.Unmount(dir, unix.UMOUNT_NOFOLLOW) }, func() []string { return users(real) })
	for _, other := range mounts("/proc/thread-self/mountinfo") {
		if other.device == m.device {
			return
		}
	}
	if !strings.HasPrefix(m.source, "/dev/") {
		return
	}
	await(t, "let go of what was mounted from "+m.source, func() error {
		err := unheld(m.source)
		if err != nil {
			forOthers(m.device, unmountThere)
		}
		return err
	}, func() []string { return holders(m.device) })
}

// unheld is EBUSY while the kernel has a filesystem of a device.
func unheld(device string) error {
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return err
	}
	if err == nil {
		f.Close()
	}
	return nil
}

// await tries what others may keep busy until it works. If it does not, who names them.
func await(t testing.TB, what string, try func() error, who func() []string) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			t.Fatalf("%s: %v; it is in use by %q", what, err, who())
		}
	}
}

// mount is a line of mountinfo.
type mount struct {
	device string // major:minor, the same for all mounts of one filesystem
	point  string // where it is mounted
	source string // what is mounted, as mount(8) was told
}

// mounts reads a mountinfo. That of a process that has ended is empty.
func mounts(mountinfo string) (list []mount) {
	text, err := os.ReadFile(mountinfo)
	if err != nil {
		return nil
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(text)) {
		// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
		before, after, _ := strings.Cut(line, " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		list = append(list, mount{device: b[2], point: unescape.Replace(b[4]), source: unescape.Replace(a[1])})
	}
	return list
}

// forOthers does something for each mount of a device in other mount namespaces: a process
// that gets one gets a copy of all that is mounted, and keeps it until it ends. Unless that
// is done, it is tried through the next process that has the same one.
func forOthers(device string, do func(process string, m mount) (done bool)) {
	own, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return
	}
	seen := map[string]bool{own: true}
	processes, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	for _, process := range processes {
		f, err := os.Open(process) // so that it stays the same process
		if err != nil {
			continue
		}
		held := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
		if namespace, err := os.Readlink(held + "/ns/mnt"); err == nil && !seen[namespace] {
			seen[namespace] = true
			for _, m := range mounts(held + "/mountinfo") {
				if m.device == device && !do(held, m) {
					seen[namespace] = false
				}
			}
		}
		f.Close()
	}
}

// unmountThere unmounts something in the mount namespace of another process, and in its
// PID namespace: /proc must be of that, or umount finds nothing.
func unmountThere(process string, m mount) (done bool) {
	return exec.Command("nsenter", "--mount="+process+"/ns/mnt", "--pid="+process+"/ns/pid", "umount", "--lazy", m.point).Run() == nil
}

// holders names the processes that have a device mounted in namespaces of their own.
func holders(device string) (list []string) {
	forOthers(device, func(process string, m mount) bool {
		list = append(list, commandLine(process)+" at "+m.point)
		return true
	})
	return list
}

// users names the processes that have a file open, or one below a folder, or work there.
func users(dir string) (list []string) {
	for _, pattern := range []string{"cwd", "root", "exe", "fd/*"} {
		links, _ := filepath.Glob("/proc/[0-9]*/" + pattern) // the pattern is good
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && (to == dir || strings.HasPrefix(to, dir+"/")) {
				list = append(list, commandLine(filepath.Join("/proc", strings.Split(link, "/")[2]))+" at "+to)
			}
		}
	}
	return list
}

func commandLine(process string) string {
	text, err := os.ReadFile(process + "/cmdline")
	if err != nil {
		return "a process that has ended"
	}
	return strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
}
