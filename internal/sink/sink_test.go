package sink_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/ext4"
	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/internal/restore/treetest"
	"github.com/drydock-vm/drydock/internal/sink"
)

var web = sink.VM{Name: "web", Time: time.Date(2026, 11, 28, 3, 0, 0, 0, time.FixedZone("", 3600))}

// makeDisk makes a disk with an ext4 of a folder.
func makeDisk(t *testing.T, name, folder string) (d sink.Disk, image string) {
	t.Helper()
	image = filepath.Join(t.TempDir(), name)
	run(t, "mke2fs", "-q", "-t", "ext4", "-I", "512", "-d", folder, image, "128M")
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	content, err := raw.Open(f, 128<<20)
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := ext4.Open(content, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return sink.Disk{Name: name, FS: fsys, Content: content}, image
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), args[0], args[1:]...)
	c.Env = append(os.Environ(), "BORG_PASSPHRASE=correct horse", "BORG_BASE_DIR="+os.Getenv("HOME"))
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}

// hand runs a program, and checks that nothing of it is left.
func hand(t *testing.T, p sink.Program, disks ...sink.Disk) (*sink.Report, error) {
	t.Helper()
	scratch := t.TempDir()
	rep, err := sink.Run(t.Context(), p, web, disks, sink.Options{Scratch: scratch})
	left, readErr := os.ReadDir(scratch)
	if readErr != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, readErr)
	}
	return rep, err
}

// TestBorg stores two disks with the real borg, twice, and extracts them.
func TestBorg(t *testing.T) {
	t.Setenv("HOME", t.TempDir())                              // of borg's cache
	kept := treetest.Without{Nanoseconds: true, Sockets: true} // mke2fs keeps no nanoseconds, borg no sockets
	folder := treetest.Make(t, kept)
	root, _ := makeDisk(t, "root", folder)
	data, _ := makeDisk(t, "data", treetest.Make(t, kept))
	repo, secret := filepath.Join(t.TempDir(), "borg"), filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(secret, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "borg", "init", "-e", "repokey", repo)
	o := sink.BorgOptions{Repository: repo, Passphrase: secret, Args: []string{"--compression", "zstd"}}
	for i := range 2 {
		p := sink.Borg(o)
		if i == 1 { // of the same time, under another name
			p.Args = append(p.Args[:len(p.Args)-2], "--stats", "::{vm}-second", ".")
		}
		rep, err := hand(t, p, root, data)
		if err != nil || len(rep.Warnings) > 0 {
			t.Fatalf("%+v, %v", rep, err)
		}
	}
	into := t.TempDir()
	t.Chdir(into)
	run(t, "borg", "extract", "--numeric-ids", "--sparse", repo+"::web-2026-11-28T02-00-00Z")
	want := treetest.List(t, folder)
	treetest.Compare(t, treetest.List(t, filepath.Join(into, "root")), want)
	treetest.Compare(t, treetest.List(t, filepath.Join(into, "data")), want)
	if list := run(t, "borg", "list", repo); !strings.Contains(list, "web-second") {
		t.Errorf("borg lists:\n%s", list)
	}
}

// TestBorgFails: what is wrong with the repository is said in borg's own words.
func TestBorgFails(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	d, _ := makeDisk(t, "root", t.TempDir())
	_, err := hand(t, sink.Borg(sink.BorgOptions{Repository: filepath.Join(t.TempDir(), "none")}), d)
	var e *sink.Error
	if !errors.As(err, &e) || e.Program != "borg" || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("no repository: %v", err)
	}
	_, err = hand(t, sink.Borg(sink.BorgOptions{Repository: "/x", Passphrase: "/does/not/exist"}), d)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no passphrase: %v", err)
	}
}

// TestCommand hands each form of input to a real program.
func TestCommand(t *testing.T) {
	folder := treetest.Make(t, treetest.Without{Nanoseconds: true})
	d, image := makeDisk(t, "root", folder)
	into := t.TempDir()
	for _, name := range []string{"web-root", "folder"} {
		if err := os.Mkdir(filepath.Join(into, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []sink.Program{
		{Name: "tar", Input: sink.Tar, Args: []string{"tar", "-x", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-pC", into + "/{vm}-{disk}"}},
		{Name: "dd", Input: sink.Raw, Args: []string{"dd", "bs=64k", "iflag=fullblock", "of=" + into + "/{disk}.{time}"}},
		{Name: "cp", Input: sink.Folder, Args: []string{"cp", "-a", "root", into + "/folder/{disk}"}},
	} {
		if rep, err := hand(t, p, d); err != nil || p.Name == "cp" && len(rep.Warnings) > 0 {
			t.Errorf("%s: %+v, %v", p.Name, rep, err)
		}
	}
	want := treetest.List(t, folder)
	treetest.Compare(t, treetest.List(t, filepath.Join(into, "folder/{disk}")), want)
	run(t, "cmp", image, filepath.Join(into, "root.2026-11-28T02-00-00Z"))
	var sockets int
	for _, line := range want { // which a tar does not hold
		if strings.Contains(line, "socket") {
			sockets++
		}
	}
	if got := treetest.List(t, filepath.Join(into, "web-root")); len(got) != len(want)-sockets {
		t.Errorf("the tar has %d names, want %d less %d sockets", len(got), len(want), sockets)
	}
}

// TestBadPrograms: each costs its own backup, says why, and leaves nothing running.
func TestBadPrograms(t *testing.T) {
	d, _ := makeDisk(t, "root", t.TempDir())
	broken := d
	broken.Content = unreadable{d.Content}
	marker := filepath.Join(t.TempDir(), "finished")
	for _, c := range []struct {
		name    string
		disk    sink.Disk
		program sink.Program
		is      error
		text    string
	}{
		{"fails", d, sink.Program{Input: sink.Raw, Args: []string{"sh", "-c", "cat > /dev/null; echo '\x1b[31mno room'; exit 3"}}, nil, "exit status 3: \\u{1b}[31mno room"},
		{"ends early", d, sink.Program{Input: sink.Raw, Args: []string{"true"}}, sink.ErrEarly, ""},
		{"hangs", d, sink.Program{Input: sink.Folder, Timeout: time.Second, Args: []string{"sh", "-c", "sleep 1000 & sleep 1000"}}, sink.ErrTimeout, "1s"},
		{"hangs and reads", d, sink.Program{Input: sink.Raw, Timeout: time.Second, Args: []string{"sleep", "1000"}}, sink.ErrTimeout, ""},
		{"holds the folder", d, sink.Program{Input: sink.Folder, Timeout: time.Second, Args: []string{"sh", "-c", "cd root; exec sleep 1000"}}, sink.ErrTimeout, ""},
		{"is not there", d, sink.Program{Input: sink.Tar, Args: []string{"/no/such/program"}}, os.ErrNotExist, "/no/such/program"},
		{"is not named", d, sink.Program{Input: sink.Tar}, nil, "no command line"},
		{"takes something else", d, sink.Program{Input: "nbd", Args: []string{"true"}}, nil, `"nbd"`},
		// The program must not take the end of what could be read for the disk's.
		{"disk breaks off", broken, sink.Program{Input: sink.Raw, Args: []string{"sh", "-c", "cat > /dev/null; touch " + marker}}, syscall.EIO, "read the disk at 1048576"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.program.Name = "tape"
			_, err := hand(t, c.program, c.disk)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "tape") {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("a program that got half of a disk went on as if it were whole")
	}
	if out, err := exec.CommandContext(t.Context(), "pgrep", "-f", "^sleep 1000$").Output(); err == nil {
		t.Errorf("still running: %s", out)
	}
}

// unreadable is a disk whose second MiB cannot be read.
type unreadable struct{ disk.Sparse }

func (u unreadable) ReadAt(p []byte, off int64) (int, error) {
	if off >= 1<<20 {
		return 0, fmt.Errorf("disk: %w", syscall.EIO)
	}
	return u.Sparse.ReadAt(p, off)
}

// TestWarnings: a program may say that all is stored but for something.
func TestWarnings(t *testing.T) {
	d, _ := makeDisk(t, "root", t.TempDir())
	p := sink.Program{Name: "tape", Input: sink.Folder, Warn: []int{7}, Args: []string{"sh", "-c", "echo one; echo two >&2; exit 7"}}
	rep, err := hand(t, p, d)
	if err != nil || strings.Join(rep.Warnings, ",") != "tape: one,tape: two" {
		t.Errorf("%+v, %v", rep, err)
	}
	p.Args[2] = "yes 'a line' | head -c 100000; exit 7"
	if rep, err = hand(t, p, d); err != nil || len(rep.Warnings) < 100 || rep.Warnings[0] != "tape: a line" || len(rep.Warnings) > 1000 {
		t.Errorf("%d warnings, %v", len(rep.Warnings), err)
	}
}

// TestEnvironment: a program learns nothing that it need not know.
func TestEnvironment(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "drydock's own")
	d, _ := makeDisk(t, "root", t.TempDir())
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("xyzzy\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rep, err := hand(t, sink.Program{Name: "env", Input: sink.Folder, Secret: secret, Env: []string{"MINE=1"}, Warn: []int{7},
		Args: []string{"sh", "-c", "env | cut -d= -f1 | sort; cat <&3; exit 7"}}, d)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(rep.Warnings, " ")
	if strings.Contains(got, "AWS") || !strings.Contains(got, "MINE") || !strings.Contains(got, "xyzzy") {
		t.Errorf("the program sees %s", got)
	}
}
