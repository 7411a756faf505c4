package backup_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/benchdisk"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/repository/testrepo"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

// The test program is also the worker that reads disks, and with measuredVerb a
// program that backs one disk up, to be measured from outside.
const measuredVerb = "measured-backup"

func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == sandbox.Verb:
		os.Exit(sandbox.WorkerMain())
	case len(os.Args) == 4 && os.Args[1] == measuredVerb:
		if err := measured(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// measured backs a disk up to a repository, and prints the most memory that it and
// the worker had.
func measured(image, to string) error {
	if profile := os.Getenv("DRYDOCK_BENCH_PROFILE"); profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	debug.SetGCPercent(backup.GCPercent)
	ctx := context.Background()
	repo, err := repository.Open(ctx, local.New(to), []byte(testrepo.Password), repository.Options{})
	if err != nil {
		return err
	}
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := sandbox.Start(ctx, sandbox.Options{AllowWithout: sandbox.Measures()}, sandbox.DiskSpec{Name: "disk", File: f, Format: sandbox.Raw})
	if err != nil {
		return err
	}
	fsys, err := r.Filesystem(ctx, "disk")
	if err != nil {
		return err
	}
	rep, err := backup.Run(ctx, repo, []backup.Source{{Disk: "disk", Mount: "/", DeviceID: 1, FS: fsys}}, backup.Options{VM: "web", Time: time.Now()})
	if err != nil {
		return err
	}
	r.Close()
	var self, worker unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &self); err != nil {
		return err
	}
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &worker); err != nil {
		return err
	}
	fmt.Printf("%d files new, %d the same; %d MB of memory, and %d MB of the worker\n",
		rep.FilesNew, rep.FilesUnchanged, self.Maxrss>>10, worker.Maxrss>>10)
	return nil
}

// contender is a program that backs a disk up.
type contender struct {
	name        string
	command     func(r repo) *exec.Cmd
	first, next []sample
	said        string
}

type sample struct{ wall, cpu time.Duration }

func (c *contender) run(t *testing.T, r repo) sample {
	t.Helper()
	cmd := c.command(r)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", c.name, err, out)
	}
	c.said = strings.TrimSpace(string(out))
	return sample{time.Since(start), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
}

func median(all []sample, of func(sample) time.Duration) float64 {
	var times []time.Duration
	for _, s := range all {
		times = append(times, of(s))
	}
	slices.Sort(times)
	return times[len(times)/2].Seconds()
}

// TestCompareRestic backs a disk of 37,000 files up for the first time and again,
// against restic on the host kernel's mount of the same disk.
func TestCompareRestic(t *testing.T) {
	benchdisk.Wanted(t)
	const rounds = 3
	image := benchdisk.System(t, "ext4")
	mounted := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop,ro", image, mounted).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	defer exec.Command("umount", mounted).Run()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	contenders := []*contender{
		{name: "drydock", command: func(r repo) *exec.Cmd { return exec.Command(self, measuredVerb, image, r.Dir) }},
		{name: "restic", command: func(r repo) *exec.Cmd {
			return exec.Command("restic", "-r", r.Dir, "--password-file", r.KeyFile, "--cache-dir", filepath.Join(r.Dir, "..", "cache"), "backup", mounted)
		}},
	}
	for range rounds {
		for _, c := range contenders {
			if err := readAll(image); err != nil { // both find it in the page cache
				t.Fatal(err)
			}
			r := newRepo(t)
			c.first = append(c.first, c.run(t, r))
			c.next = append(c.next, c.run(t, r))
			if err := os.RemoveAll(r.Dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	ours := contenders[0]
	for _, c := range contenders {
		for what, pair := range map[string][2][]sample{"first": {ours.first, c.first}, "unchanged": {ours.next, c.next}} {
			wall, cpu := func(s sample) time.Duration { return s.wall }, func(s sample) time.Duration { return s.cpu }
			t.Logf("%-8s %-10s %6.2f s wall, %6.2f s CPU; drydock / this: %.2f, %.2f", c.name, what, median(pair[1], wall), median(pair[1], cpu),
				median(pair[0], wall)/median(pair[1], wall), median(pair[0], cpu)/median(pair[1], cpu))
		}
	}
	t.Log(ours.said)
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

// TestCompareMemory backs a million files up, for the first time and again.
func TestCompareMemory(t *testing.T) {
	benchdisk.Wanted(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	image, r := benchdisk.Million(t, "ext4"), newRepo(t)
	c := &contender{name: "drydock", command: func(r repo) *exec.Cmd { return exec.Command(self, measuredVerb, image, r.Dir) }}
	for range 2 {
		s := c.run(t, r)
		t.Logf("%.1f s wall, %.1f s CPU: %s", s.wall.Seconds(), s.cpu.Seconds(), c.said)
	}
}
