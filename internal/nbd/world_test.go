package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/internal/nbd"
)

// errDisk is what a damaged place of a memDisk reads as. Its text is not fit for
// a terminal.
var errDisk = errors.New("the platter\x1b[31m is scratched")

// memDisk is a disk in memory. What its extents do not say is data.
type memDisk struct {
	content []byte
	extents []disk.Extent
	// bad is the range that cannot be read.
	badFrom, badTo int64
	// noExtents makes Extents fail.
	noExtents bool
}

// newMemDisk makes a disk of the given extents, one behind the other.
func newMemDisk(extents ...disk.Extent) *memDisk {
	d := new(memDisk)
	random := rand.NewChaCha8([32]byte{7})
	for _, e := range extents {
		e.Offset = int64(len(d.content))
		part := make([]byte, e.Length)
		if e.Kind == disk.ExtentData {
			random.Read(part)
		}
		d.content = append(d.content, part...)
		d.extents = append(d.extents, e)
	}
	return d
}

func extent(kind disk.ExtentKind, length int64) disk.Extent {
	return disk.Extent{Kind: kind, Length: length}
}

func (d *memDisk) Size() int64 { return int64(len(d.content)) }

func (d *memDisk) ReadAt(p []byte, off int64) (int, error) {
	if off < d.badTo && off+int64(len(p)) > d.badFrom {
		return 0, errDisk
	}
	return bytes.NewReader(d.content).ReadAt(p, off)
}

func (d *memDisk) Extents(off, length int64, yield func(disk.Extent) error) error {
	if d.noExtents {
		return errDisk
	}
	for _, e := range d.extents {
		from, to := max(e.Offset, off), min(e.Offset+e.Length, off+length)
		if from >= to {
			continue
		}
		if err := yield(disk.Extent{Offset: from, Length: to - from, Kind: e.Kind}); err != nil {
			return err
		}
	}
	return nil
}

// server is a server under test.
type server struct {
	path   string
	stop   func()
	mu     sync.Mutex
	errors []error
}

// start serves exports at a socket until the test ends.
func start(t testing.TB, exports ...nbd.Export) *server {
	t.Helper()
	return startWith(t, nbd.Options{Exports: exports})
}

func startWith(t testing.TB, opts nbd.Options) *server {
	t.Helper()
	s := &server{path: filepath.Join(t.TempDir(), "s")}
	opts.Report = func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.errors = append(s.errors, err)
	}
	l, err := nbd.Listen(s.path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- nbd.Serve(ctx, l, opts) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("the server does not end")
		}
		if _, err := os.Lstat(s.path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	t.Cleanup(s.stop)
	return s
}

// reports returns what the server had to say so far.
func (s *server) reports() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]error(nil), s.errors...)
}

func (s *server) uri(export string) string { return "nbd+unix:///" + export + "?socket=" + s.path }

func (s *server) dial(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// run runs a program and returns what it printed.
func run(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(t.Context(), name, args...)
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		t.Fatalf("%v: %v: %s%s", c.Args, err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.Bytes()
}

// sparseFile makes a file of data and holes that ends within a sector.
func sparseFile(t testing.TB) (string, disk.Sparse) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	random := rand.NewChaCha8([32]byte{1})
	for _, at := range []int64{0, 1 << 20, 1<<20 + 64<<10, 5 << 20, 11<<20 + 4096} {
		part := make([]byte, 40<<10)
		random.Read(part)
		if _, err := f.WriteAt(part, at); err != nil {
			t.Fatal(err)
		}
	}
	const size = 48<<20 + 1000
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	d, err := raw.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	return path, d
}

// content reads a whole disk.
func content(t testing.TB, d disk.Sparse) []byte {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(d, 0, d.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
