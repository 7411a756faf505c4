package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/sandbox/confine"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// startProbing starts a worker that serves tries, with one image that is, unlike
// any that Start accepts, open for writing.
func startProbing(t *testing.T, opts Options) *Reader {
	t.Helper()
	opts.setDefaults()
	if opts.Args == nil {
		opts.Args = []string{"probing"}
	}
	d, measures, err := startWorker(t.Context(), opts, "test", given{files: []*os.File{writableImage(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if err := checkMeasures(measures, nil); err != nil {
		t.Fatal(err)
	}
	return d
}

// startFree starts such a worker without any confinement.
func startFree(t *testing.T) *Reader {
	t.Helper()
	opts := Options{Args: []string{"probing-unconfined"}}
	opts.setDefaults()
	l, files, err := newLink()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{disk: "test", exited: make(chan struct{})}
	if err := p.spawn(opts, append(files, writableImage(t)), confine.Unisolated()); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		f.Close()
	}
	go p.reap()
	d := &Reader{client: newClient(p, l, opts.RequestTimeout), stop: func() bool { return true }}
	go d.client.run()
	t.Cleanup(func() { d.Close() })
	if _, err := d.setup(t.Context(), wire.Setup{Files: 1, Memory: opts.MemoryLimit}); err != nil {
		t.Fatal(err)
	}
	return d
}

func writableImage(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "image"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	return f
}

// otherProcess starts a process for the worker to play with.
func otherProcess(t *testing.T) int {
	t.Helper()
	c := exec.Command("sleep", "600")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return c.Process.Pid
}

func (d *Reader) try(number, arg int) error {
	_, _, err := d.client.ask(context.Background(), wire.OpTest+wire.Op(number), tryRequest(arg))
	return err
}

// Every try is denied in a confined worker, and succeeds in one that is not, so
// the denial is the confinement's doing.
func TestConfinement(t *testing.T) {
	// First, so that it is ended after the worker that traces it.
	other := otherProcess(t)
	confined, free := startProbing(t, Options{}), startFree(t)
	for i, a := range tries() {
		t.Run(a.name, func(t *testing.T) {
			if err := confined.try(i, other); err == nil {
				t.Errorf("a confined worker could %s", a.name)
			} else if e := new(Error); errors.As(err, &e) {
				t.Errorf("trying to %s ended the worker: %v", a.name, err)
			}
			if err := free.try(i, other); err != nil {
				t.Errorf("without confinement a worker could not %s either, which proves nothing: %v", a.name, err)
			}
		})
	}
}

// Each thread of a worker is confined, those that were there before and those
// that came later.
func TestConfinementOfAllThreads(t *testing.T) {
	d := startProbing(t, Options{})
	done := make(chan error)
	for range 8 {
		go func() { done <- d.try(tryThreads, 0) }()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	pid := d.client.process.cmd.Process.Pid
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("%d threads, %v", len(tasks), err)
	}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"NoNewPrivs:\t1", "Seccomp:\t2",
			"Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534", "Groups:\t \n",
			"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000",
		} {
			if !strings.Contains(string(status), want) {
				t.Errorf("%s lacks %q:\n%s", task, want, status)
			}
		}
	}
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || len(environment) != 0 {
		t.Errorf("the worker's environment is %q, %v", environment, err)
	}
	for _, ns := range []string{"net", "ipc", "uts", "mnt"} {
		ours, _ := os.Readlink("/proc/self/ns/" + ns)
		its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
		if err != nil || its == ours {
			t.Errorf("the worker is in the %s namespace %s, %v; the parent in %s", ns, its, err, ours)
		}
	}
}

// A worker that allocates more than it may dies, and only it does.
func TestMemoryLimit(t *testing.T) {
	const limit, much = 64 << 20, 320 // MiB
	err := startProbing(t, Options{MemoryLimit: limit}).try(tryAllocate, much)
	if !errors.Is(err, ErrDied) {
		t.Errorf("a worker with a limit of %d bytes allocated %d MiB: %v", limit, much, err)
	}
	t.Log(err)
	if err := startFree(t).try(tryAllocate, much); err != nil {
		t.Errorf("without a limit it failed too, which proves nothing: %v", err)
	}
	// What it needs for its work is there.
	if err := startProbing(t, Options{MemoryLimit: limit}).try(tryAllocate, 48); err != nil {
		t.Error(err)
	}
}

// A host that lacks a measure is refused by name, unless that is allowed.
func TestMissingMeasure(t *testing.T) {
	list := []Measure{{Name: Landlock, Detail: "no such kernel"}, {Name: Seccomp, OK: true}, {Name: Namespaces, Detail: "not permitted"}}
	err := checkMeasures(list, []string{Namespaces})
	var missing *MissingError
	if !errors.As(err, &missing) || len(missing.Missing) != 1 || missing.Missing[0].Name != Landlock {
		t.Fatalf("got %v", err)
	}
	if s := err.Error(); !strings.Contains(s, "landlock: no such kernel") {
		t.Errorf("the error does not say what is missing, and why: %s", s)
	}
	if err := checkMeasures(list, []string{Namespaces, Landlock}); err != nil {
		t.Error(err)
	}
}

// The worker dies with its parent, even when it is busy and does not see that
// its socket is closed.
func TestWorkerDiesWithParent(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "pid"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	parent := exec.Command("/proc/self/exe", "starter", out.Name())
	parent.Stderr = os.Stderr
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { parent.Process.Kill(); parent.Wait() })

	pid := waitFor(t, "the worker's process number", func() string {
		b, _ := os.ReadFile(out.Name())
		return strings.TrimSpace(string(b))
	})
	if _, err := os.Stat("/proc/" + pid); err != nil {
		t.Fatal(err)
	}
	parent.Process.Kill()
	parent.Wait()
	waitFor(t, "the end of the worker", func() string {
		state, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(state), ") Z ") {
			return "gone"
		}
		return ""
	})
}

// startAndWait starts a worker that is busy for ever, tells its process number,
// and waits to be killed.
func startAndWait(tell string) int {
	opts := Options{Args: []string{"probing"}}
	opts.setDefaults()
	d, _, err := startWorker(context.Background(), opts, "test", given{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go d.try(tryHang, 0)
	time.Sleep(100 * time.Millisecond)
	if err := os.WriteFile(tell, fmt.Appendln(nil, d.client.process.cmd.Process.Pid), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	select {}
}

// waitFor polls until get returns something.
func waitFor(t *testing.T, what string, get func() string) string {
	t.Helper()
	for range 1000 {
		if s := get(); s != "" {
			return s
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
	return ""
}
