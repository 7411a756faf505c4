package backup_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/benchdisk"
	"github.com/drydock-vm/drydock/internal/repository/testrepo"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// contender is a program that backs a disk up to a repository of its own, and again
// when nothing has changed.
type contender struct {
	name string
	// repository makes a new one, and returns its folder and what backs up to it.
	repository  func(t *testing.T) (dir string, backup func() *exec.Cmd)
	first, next []sample
	size        int64 // of the last repository, in bytes
	said        string
}

type sample struct{ wall, cpu time.Duration }

func (c *contender) play(t *testing.T) {
	t.Helper()
	dir, backup := c.repository(t)
	c.first = append(c.first, c.run(t, backup()))
	c.next = append(c.next, c.run(t, backup()))
	c.size = benchdisk.FolderSize(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

func (c *contender) run(t *testing.T, cmd *exec.Cmd) sample {
	t.Helper()
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", c.name, err, out)
	}
	c.said = strings.TrimSpace(string(out))
	return sample{time.Since(start), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
}

// ours is drydock, through the confined worker.
func ours(t *testing.T, image string) *contender {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &contender{name: "drydock on " + strings.TrimPrefix(filepath.Ext(image), "."), repository: func(t *testing.T) (string, func() *exec.Cmd) {
		r := testrepo.New(t)
		return r.Dir, func() *exec.Cmd { return exec.Command(self, measuredVerb, image, r.Dir) }
	}}
}

// restic and borg, as they come, back up what is mounted in a folder.
func restic(on, folder string) *contender {
	return &contender{name: "restic on " + on, repository: func(t *testing.T) (string, func() *exec.Cmd) {
		r, cache := testrepo.New(t), t.TempDir()
		return r.Dir, func() *exec.Cmd {
			return exec.Command("restic", "-r", r.Dir, "--password-file", r.KeyFile, "--cache-dir", cache, "backup", folder)
		}
	}}
}

func borg(on, folder string) *contender {
	return &contender{name: "borg on " + on, repository: func(t *testing.T) (string, func() *exec.Cmd) {
		dir, base, backups := filepath.Join(t.TempDir(), "repo"), t.TempDir(), 0
		command := func(args ...string) *exec.Cmd {
			cmd := exec.Command("borg", args...)
			cmd.Env = append(os.Environ(), "BORG_BASE_DIR="+base, "BORG_PASSPHRASE="+testrepo.Password)
			return cmd
		}
		if out, err := command("init", "--encryption", "repokey-blake2", dir).CombinedOutput(); err != nil {
			t.Fatalf("borg init: %v\n%s", err, out)
		}
		return dir, func() *exec.Cmd {
			backups++
			return command("create", dir+"::"+strings.Repeat("x", backups), folder)
		}
	}}
}

// measure plays rounds of all contenders in turn, each of which finds the files that
// it reads from in the page cache, and reports medians, and what those of the first
// ones, which are drydock's, are to each.
func measure(t *testing.T, rounds, drydocks int, read []string, contenders ...*contender) {
	t.Helper()
	for range rounds {
		for _, c := range contenders {
			for _, path := range read {
				if err := readAll(path); err != nil {
					t.Fatal(err)
				}
			}
			c.play(t)
		}
	}
	wall, cpu := func(s sample) time.Duration { return s.wall }, func(s sample) time.Duration { return s.cpu }
	for i, c := range contenders {
		t.Logf("%s: first %.2f s wall, %.2f s CPU; unchanged %.2f s, %.2f s; repository of %d MB",
			c.name, median(c.first, wall), median(c.first, cpu), median(c.next, wall), median(c.next, cpu), c.size/1e6)
		if i < drydocks {
			t.Log(c.said)
			continue
		}
		for _, ours := range contenders[:drydocks] {
			t.Logf("    %s to it: first %.2f wall, %.2f CPU; unchanged %.2f, %.2f; repository %.3f", ours.name,
				median(ours.first, wall)/median(c.first, wall), median(ours.first, cpu)/median(c.first, cpu),
				median(ours.next, wall)/median(c.next, wall), median(ours.next, cpu)/median(c.next, cpu),
				float64(ours.size)/float64(c.size))
		}
	}
}

func median(all []sample, of func(sample) time.Duration) float64 {
	var times []time.Duration
	for _, s := range all {
		times = append(times, of(s))
	}
	slices.Sort(times)
	return times[len(times)/2].Seconds()
}

func readAll(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, f, make([]byte, 1<<20))
	return err
}

// TestCompareLoop backs a disk of 37,000 files up for the first time and again. Drydock
// reads it from a compressed qcow2, and from the same disk as a raw file. Restic and borg
// read the host kernel's mount of the latter, which is the best that they could ever do:
// no kernel mounts a qcow2, so that somebody has to convert it for them each night. That
// is measured, too.
func TestCompareLoop(t *testing.T) {
	benchdisk.Wanted(t)
	image, packed := benchdisk.System(t, "ext4"), benchdisk.Packed(t, "ext4")
	mounted, _ := testmount.Image(t, image, "ro")
	measure(t, 3, 2, []string{image, packed}, ours(t, packed), ours(t, image), restic("a loop mount", mounted), borg("a loop mount", mounted))

	c := contender{name: "qemu-img convert"}
	raw := filepath.Join(t.TempDir(), "converted.raw")
	s := c.run(t, exec.Command("qemu-img", "convert", "-W", "-m", "4", "-f", "qcow2", "-O", "raw", packed, raw))
	t.Logf("%s of the qcow2, before which there is no loop mount: %.2f s wall, %.2f s CPU", c.name, s.wall.Seconds(), s.cpu.Seconds())
}

// TestCompareGuestmount does the same with the programs reading a guestmount of the
// same qcow2, once: it takes its time. Neither the start of guestmount's appliance nor
// the CPU time of that is counted.
func TestCompareGuestmount(t *testing.T) {
	benchdisk.Wanted(t)
	packed := benchdisk.Packed(t, "ext4")
	mounted := benchdisk.Guestmount(t, packed)
	measure(t, 1, 1, []string{packed}, ours(t, packed), restic("guestmount", mounted), borg("guestmount", mounted))
}

// TestCompareMemory backs a million files up, for the first time and again.
func TestCompareMemory(t *testing.T) {
	benchdisk.Wanted(t)
	c := ours(t, benchdisk.Million(t, "ext4"))
	_, backup := c.repository(t)
	for range 2 {
		s := c.run(t, backup())
		t.Logf("%.1f s wall, %.1f s CPU: %s", s.wall.Seconds(), s.cpu.Seconds(), c.said)
	}
}
