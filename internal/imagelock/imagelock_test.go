package imagelock_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/imagelock"
)

// newImage makes a disk image with the real qemu-img and opens it.
func newImage(t *testing.T, format string) (string, *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	run(t, "qemu-img", "create", "-q", "-f", format, path, "4M")
	return path, open(t, path)
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// refusesLock runs a command that must fail, and for the lock's sake.
func refusesLock(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err == nil {
		t.Fatalf("%s %v worked on a locked image:\n%s", name, args, out)
	}
	if !strings.Contains(string(out), "lock") {
		t.Fatalf("%s %v failed for another reason: %v\n%s", name, args, err, out)
	}
}

func acquire(t *testing.T, f *os.File, m imagelock.Mode) *imagelock.Lock {
	t.Helper()
	l, err := imagelock.Acquire(f, m)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// startQEMU starts a virtual machine with its CPUs stopped, and returns its
// PID once it has opened the image.
func startQEMU(t *testing.T, path, format, options string) int {
	t.Helper()
	cmd := exec.Command("qemu-system-x86_64", qemuArgs(path, format, options)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	// The greeting may come before the disks are open, the answer cannot.
	fmt.Fprintln(in, `{"execute": "qmp_capabilities"}`)
	lines := bufio.NewReader(out)
	for _, want := range []string{`"QMP"`, `"return"`} {
		if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, want) {
			t.Fatalf("QEMU said %q, %v; want %s", line, err, want)
		}
	}
	return cmd.Process.Pid
}

func qemuArgs(path, format, options string) []string {
	return []string{"-accel", "tcg", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio",
		"-drive", "file=" + path + ",format=" + format + ",if=virtio" + options}
}

func TestExclusiveKeepsQEMUOut(t *testing.T) {
	for _, format := range []string{"raw", "qcow2"} {
		t.Run(format, func(t *testing.T) {
			path, f := newImage(t, format)
			l := acquire(t, f, imagelock.Exclusive)
			refusesLock(t, "qemu-img", "convert", "-f", format, "-O", "raw", path, filepath.Join(t.TempDir(), "copy"))
			refusesLock(t, "qemu-img", "resize", "-f", format, path, "8M")
			refusesLock(t, "qemu-system-x86_64", qemuArgs(path, format, "")...)
			refusesLock(t, "qemu-system-x86_64", qemuArgs(path, format, ",readonly=on")...)
			run(t, "qemu-img", "info", "-U", "-f", format, path)

			if err := l.Release(); err != nil {
				t.Fatal(err)
			}
			run(t, "qemu-img", "info", "-f", format, path)
			run(t, "qemu-img", "resize", "-f", format, path, "8M")
		})
	}
}

func TestReadSharedKeepsWritersOut(t *testing.T) {
	path, f := newImage(t, "qcow2")
	l := acquire(t, f, imagelock.ReadShared)
	run(t, "qemu-img", "info", "-f", "qcow2", path)
	run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, filepath.Join(t.TempDir(), "copy"))
	refusesLock(t, "qemu-img", "snapshot", "-c", "s", path)
	refusesLock(t, "qemu-system-x86_64", qemuArgs(path, "qcow2", "")...)
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "snapshot", "-c", "s", path)
}

func TestClosingReleases(t *testing.T) {
	path, f := newImage(t, "raw")
	acquire(t, f, imagelock.Exclusive)
	f.Close()
	run(t, "qemu-img", "info", "-f", "raw", path)
}

func TestRefusesWhatQEMUHolds(t *testing.T) {
	for _, format := range []string{"raw", "qcow2"} {
		t.Run(format, func(t *testing.T) {
			path, f := newImage(t, format)
			pid := startQEMU(t, path, format, "")
			for _, m := range []imagelock.Mode{imagelock.Exclusive, imagelock.ReadShared} {
				_, err := imagelock.Acquire(f, m)
				var inUse *imagelock.InUseError
				if !errors.As(err, &inUse) || !errors.Is(err, imagelock.ErrInUse) {
					t.Fatalf("%v: got %v, want an InUseError", m, err)
				}
				want := fmt.Sprintf("process %d (qemu-system-x86)", pid)
				if inUse.By != want || inUse.Path != path {
					t.Errorf("%v: in use is %s by %q, want %s by %q", m, inUse.Path, inUse.By, path, want)
				}
			}
			use, err := imagelock.InUse(path)
			if err != nil || !use.Read || !use.Write {
				t.Errorf("InUse says %+v, %v of a disk that a VM writes to", use, err)
			}
		})
	}
}

// A failed Acquire must not leave locks behind that keep QEMU out.
func TestFailedAcquireLeavesNothing(t *testing.T) {
	path, f := newImage(t, "qcow2")
	reader := open(t, path)
	l := acquire(t, reader, imagelock.ReadShared)
	if _, err := imagelock.Acquire(f, imagelock.Exclusive); !errors.Is(err, imagelock.ErrInUse) {
		t.Fatalf("an exclusive lock beside a reader: %v", err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if use, err := imagelock.InUse(path); err != nil || use.Any() {
		t.Fatalf("after all is released: %+v, %v", use, err)
	}
	run(t, "qemu-img", "resize", "-f", "qcow2", path, "8M")
}

func TestReaderBesideReader(t *testing.T) {
	path, f := newImage(t, "raw")
	pid := startQEMU(t, path, "raw", ",readonly=on")
	acquire(t, f, imagelock.ReadShared)
	use, err := imagelock.InUse(path)
	if err != nil || !use.Read || use.Write || use.Denied {
		t.Errorf("InUse says %+v, %v of a disk that VM %d and this test read", use, err, pid)
	}
}

func TestInUseTakesNothing(t *testing.T) {
	path, f := newImage(t, "raw")
	use, err := imagelock.InUse(path)
	if err != nil || use.Any() || use.By != "" {
		t.Fatalf("an image that nobody uses: %+v, %v", use, err)
	}
	acquire(t, f, imagelock.Exclusive)
	if use, err = imagelock.InUse(path); err != nil || !use.Denied || !use.Write {
		t.Fatalf("an image that is locked: %+v, %v", use, err)
	}
	if want := fmt.Sprintf("process %d ", os.Getpid()); !strings.HasPrefix(use.By, want) {
		t.Errorf("held by %q, want %q", use.By, want)
	}
	if _, err := imagelock.InUse(path + ".missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing image: %v", err)
	}
}

// Two runs of drydock, as processes: the second is refused while the first
// lives, and not after it was killed.
func TestTwoProcesses(t *testing.T) {
	path, f := newImage(t, "raw")
	cmd := exec.Command(os.Args[0], "-test.run=^TestMain$")
	cmd.Env = append(os.Environ(), "IMAGELOCK_HOLD="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	var inUse *imagelock.InUseError
	if _, err := imagelock.Acquire(f, imagelock.ReadShared); !errors.As(err, &inUse) {
		t.Fatalf("while another process holds it: %v", err)
	}
	if want := fmt.Sprintf("process %d ", cmd.Process.Pid); !strings.HasPrefix(inUse.By, want) {
		t.Errorf("held by %q, want %q", inUse.By, want)
	}
	cmd.Process.Kill()
	cmd.Wait()
	acquire(t, f, imagelock.ReadShared)
}

func TestMain(m *testing.M) {
	if path := os.Getenv("IMAGELOCK_HOLD"); path != "" {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			_, err = imagelock.Acquire(f, imagelock.Exclusive)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("held")
		time.Sleep(time.Minute) // the test kills it long before
	}
	os.Exit(m.Run())
}
