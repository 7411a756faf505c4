package confine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The test binary runs itself with one measure applied, or none, and tries what
// the measure forbids. That all of them together hold is tested in package
// sandbox; here each must hold by itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "with" {
		os.Exit(tryWith(os.Args[2], os.Args[3:]))
	}
	os.Exit(m.Run())
}

var measures = map[string]func() (string, error){
	"nothing":  func() (string, error) { return "", nil },
	Landlock:   applyLandlock,
	Privileges: dropPrivileges,
	Rlimits:    func() (string, error) { return limitMemory(64 << 20) },
	"nofile":   func() (string, error) { return "", limitDescriptors() },
	Seccomp:    func() (string, error) { return applySeccomp(Options{FirstDisk: 5, Disks: 1}) },
	NoNewPrivs: setNoNewPrivs,
}

// tryWith prints what became of each act.
func tryWith(name string, args []string) int {
	address, socket, pid := args[0], args[1], args[2]
	parent, err := strconv.Atoi(pid)
	if err != nil {
		return 2
	}
	file, err := os.OpenFile(args[3], os.O_WRONLY, 0)
	if err != nil {
		return 2
	}
	if _, err := measures[name](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	report := func(act string, err error) {
		if err != nil {
			fmt.Println(act, "denied", err)
		} else {
			fmt.Println(act, "done")
		}
	}
	f, err := os.Open("/etc/passwd")
	report("open", err)
	f.Close()
	c, err := net.Dial("tcp", address)
	report("tcp", err)
	if err == nil {
		c.Close()
	}
	c, err = net.Dial("unix", socket)
	report("abstract", err)
	if err == nil {
		c.Close()
	}
	report("signal", syscall.Kill(parent, 0))
	report("chown", os.Chown(args[3], 1, 1))
	_, err = file.Write([]byte("x"))
	report("write", err)
	fd, err := unix.Dup(0)
	report("dup", err)
	unix.Close(fd)
	b, err := unix.Mmap(-1, 0, 1<<30, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	report("memory", err)
	if err == nil {
		unix.Munmap(b)
	}
	return 0
}

func TestEachMeasure(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	socket := fmt.Sprintf("@drydock-test-%d", os.Getpid())
	abstract, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()

	for name, denied := range map[string][]string{
		"nothing":  nil,
		Landlock:   {"open", "tcp", "abstract", "signal"},
		Privileges: {"signal", "chown"},
		Rlimits:    {"write", "memory"},
		"nofile":   {"open", "tcp", "abstract", "dup"},
		// The file is descriptor 3, and not among the disks.
		Seccomp: {"open", "tcp", "abstract", "signal", "chown", "dup"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(path, nil, 0o666); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("/proc/self/exe", "with", name, tcp.Addr().String(), socket, strconv.Itoa(os.Getpid()), path)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			got := make(map[string]bool)
			for line := range strings.Lines(string(out)) {
				act, result, _ := strings.Cut(strings.TrimSpace(line), " ")
				got[act] = strings.HasPrefix(result, "denied")
			}
			if len(got) != 8 {
				t.Fatalf("%d acts:\n%s", len(got), out)
			}
			want := make(map[string]bool)
			for _, act := range denied {
				want[act] = true
			}
			for act := range got {
				if want[act] && !got[act] {
					t.Errorf("%s does not forbid to %s:\n%s", name, act, out)
				}
				if name == "nothing" && got[act] {
					t.Errorf("with nothing applied %s is denied:\n%s", act, out)
				}
			}
		})
	}
}

func TestMeasureReportsWhy(t *testing.T) {
	why := errors.New("no such kernel")
	if m := measure("x", func() (string, error) { return "", why }); m.OK || m.Detail != why.Error() || m.Name != "x" {
		t.Errorf("%+v", m)
	}
	if m := namespaces(Options{}); m.OK {
		t.Errorf("%+v", m)
	}
}
