package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
	"github.com/drydock-vm/drydock/internal/sandbox/worker"
)

// inMemory is a disk that is no file.
type inMemory struct {
	*bytes.Reader
	reads  atomic.Int64
	damage func(off int64, n int) error // what a read gives; nil is no error
	slow   time.Duration                // what each read takes
}

func (m *inMemory) Size() int64 { return m.Reader.Size() }

func (m *inMemory) ReadAt(p []byte, off int64) (int, error) {
	m.reads.Add(1)
	time.Sleep(m.slow)
	if m.damage != nil {
		if err := m.damage(off, len(p)); err != nil {
			return 0, err
		}
	}
	return m.Reader.ReadAt(p, off)
}

func contentOf(t *testing.T, path string) *inMemory {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return &inMemory{Reader: bytes.NewReader(data)}
}

func startServed(t *testing.T, opts Options, specs ...DiskSpec) *Reader {
	t.Helper()
	d, err := Start(context.WithoutCancel(t.Context()), opts, specs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestServed reads a qcow2 that is no file, below it a raw one that is a file, and
// the other way round; and a tree comes back as it was.
func TestServed(t *testing.T) {
	tree := makeTree(t)
	image := makeImage(t, tree)
	t.Run("qcow2", func(t *testing.T) {
		c := contentOf(t, image)
		d := startServed(t, Options{}, DiskSpec{Name: "disk.qcow2", Content: c, Format: Qcow2})
		filesystem, err := d.Filesystem(t.Context(), dataVolume)
		if err != nil {
			t.Fatal(err)
		}
		compareTree(t, filesystem, tree, byName)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		before := c.reads.Load()
		if _, err := d.Disks()[0].ReadAt(make([]byte, 10), 0); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		if err := filesystem.ReadDir(filesystem.Info().Root, func(disk.DirEntry) error { return nil }); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		if c.reads.Load() != before {
			t.Error("the content is read after Close")
		}
	})
	base := filepath.Join(t.TempDir(), "base.raw")
	run(t, "qemu-img", "convert", "-O", "raw", image, base)
	over := filepath.Join(t.TempDir(), "over.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, over)
	for name, spec := range map[string]DiskSpec{
		"raw":              {Content: contentOf(t, base), Format: Raw},
		"raw below a file": {File: openFile(t, over), Format: Qcow2, Backing: &DiskSpec{Content: contentOf(t, base), Format: Raw}},
		"file below":       {Content: contentOf(t, over), Format: Qcow2, Backing: &DiskSpec{File: openFile(t, base), Format: Raw}},
	} {
		t.Run(name, func(t *testing.T) {
			spec.Name = "disk.qcow2"
			second := DiskSpec{Name: "second", Content: contentOf(t, over), Format: Raw}
			d := startServed(t, Options{}, spec, second)
			filesystem, err := d.Filesystem(t.Context(), dataVolume)
			if err != nil {
				t.Fatal(err)
			}
			compareTree(t, filesystem, tree, asListed)
			got := make([]byte, 4)
			if _, err := d.Disks()[1].ReadAt(got, 0); err != nil || string(got) != "QFI\xfb" {
				t.Errorf("the second disk begins with %q, %v", got, err)
			}
		})
	}
	for name, spec := range map[string]DiskSpec{
		"a file too":  {Content: contentOf(t, base), File: openFile(t, base), Format: Raw},
		"no format":   {Content: contentOf(t, base)},
		"other bytes": {Content: contentOf(t, base), Format: Qcow2},
	} {
		spec.Name = "d"
		if d, err := Start(t.Context(), Options{}, spec); err == nil {
			d.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestServedDamage: what the content says of its own damage reaches whoever asked for
// a file, and the rest of the disk is read.
func TestServedDamage(t *testing.T) {
	tree := t.TempDir()
	want := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(want)
	for name, data := range map[string][]byte{"large": want, "small": []byte("fine")} {
		if err := os.WriteFile(filepath.Join(tree, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	image := filepath.Join(t.TempDir(), "image")
	run(t, "mke2fs", "-q", "-t", "ext4", "-d", tree, image, "64M")
	c := contentOf(t, image)
	data, _ := os.ReadFile(image)
	hurt := int64(bytes.Index(data, want[2<<20:2<<20+4096]))
	broken := &disk.Error{Layer: "backup", Structure: "content", Offset: hurt, Err: fmt.Errorf("%w: pack 12345678", disk.ErrCorrupt)}
	c.damage = func(off int64, n int) error {
		if off <= hurt && hurt < off+int64(n) {
			return broken
		}
		return nil
	}
	d := startServed(t, Options{}, DiskSpec{Name: "d", Content: c, Format: Raw})
	filesystem, err := d.Filesystem(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string]bool{"/large": true, "/small": false} {
		n, err := disk.Lookup(filesystem, []byte(name))
		if err != nil {
			t.Fatal(err)
		}
		f, err := filesystem.Open(n.Ino)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, io.NewSectionReader(f, 0, f.Size()))
		if damaged != (err != nil) || damaged && (!errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), "pack 12345678")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The worker itself meets the damage where it is asked for the disk's bytes.
	v := d.Disks()[0]
	if err := v.fromWorker(make([]byte, 4096), hurt); !errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), "pack 12345678") {
		t.Errorf("through the worker: %v", err)
	}
	if err := v.fromWorker(make([]byte, 4096), 0); err != nil {
		t.Errorf("after the damage: %v", err)
	}
}

// TestServedSlowly: the time that content takes is not the worker's, up to a limit.
func TestServedSlowly(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	run(t, "mke2fs", "-q", "-t", "ext4", image, "8M")
	c := contentOf(t, image)
	c.slow = 300 * time.Millisecond
	d := startServed(t, Options{RequestTimeout: 500 * time.Millisecond}, DiskSpec{Name: "d", Content: c, Format: Raw})
	begin := time.Now()
	if err := d.Disks()[0].fromWorker(make([]byte, 1<<20), 1<<20); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took < 2*time.Second {
		t.Errorf("it took %v, which proves nothing", took)
	}
}

// TestConfinementOfServed: a worker that is served has one descriptor more than one
// without any disk, a socket; and what a confined worker cannot do, it cannot.
func TestConfinementOfServed(t *testing.T) {
	descriptors := func(d *Reader) (kinds []string) {
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", d.client.process.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			target, err := os.Readlink(l)
			if err != nil {
				t.Fatal(err)
			}
			kind, _, _ := strings.Cut(target, ":[")
			kinds = append(kinds, kind)
		}
		slices.Sort(kinds)
		return kinds
	}
	opts := Options{Args: []string{"probing"}}
	opts.setDefaults()
	start := func(g given) *Reader {
		d, measures, err := startWorker(t.Context(), opts, "test", g)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		if err := checkMeasures(measures, nil); err != nil {
			t.Fatal(err)
		}
		return d
	}
	bare, served := descriptors(start(given{})), descriptors(start(given{served: true}))
	if want := append(bare, "socket"); !slices.Equal(served, slices.Sorted(slices.Values(want))) {
		t.Errorf("it has %q, and without the content's socket %q", served, bare)
	}
	both, other := start(given{files: []*os.File{writableImage(t)}, served: true}), otherProcess(t)
	for i, a := range tries() {
		if err := both.try(i, other); err == nil {
			t.Errorf("a confined worker could %s", a.name)
		} else if e := new(Error); errors.As(err, &e) {
			t.Fatalf("trying to %s ended the worker: %v", a.name, err)
		}
	}
}

// beggar is a worker that a guest has taken over, and that asks for content as no
// honest one does.
type beggar struct {
	name string
	// beg writes to the content's socket, while a request of the parent is open.
	beg  func(content *os.File)
	idle bool // only after that has been answered
	want error
}

func beggars() []beggar {
	fetch := func(r wire.Fetch) []byte {
		return frame(wire.Header{Length: wire.FetchSize, ID: 1, Code: uint8(wire.OpFetch)}, r.Append(nil))
	}
	once := func(b []byte) func(*os.File) {
		return func(f *os.File) { f.Write(b) }
	}
	good := wire.Fetch{Off: 4096, Length: wire.MaxFetch}
	forever := func(f *os.File) {
		buf := make([]byte, wire.HeaderSize+good.Length)
		for {
			f.Write(fetch(good))
			io.ReadFull(f, buf)
		}
	}
	return []beggar{
		{"beyond the end", once(fetch(wire.Fetch{Off: liarDisk - 1, Length: 2})), false, ErrLied},
		{"far beyond the end", once(fetch(wire.Fetch{Off: 1<<63 - 1, Length: 65536})), false, ErrLied},
		{"before the beginning", once(fetch(wire.Fetch{Off: -1, Length: 1})), false, ErrLied},
		{"nothing", once(fetch(wire.Fetch{})), false, ErrLied},
		{"too much", once(fetch(wire.Fetch{Length: wire.MaxFetch + 1})), false, ErrLied},
		{"4 GiB", once(fetch(wire.Fetch{Length: 1<<32 - 1})), false, ErrLied},
		{"another file", once(fetch(wire.Fetch{File: 1, Length: 1})), false, ErrLied},
		{"no such file", once(fetch(wire.Fetch{File: 200, Length: 1})), false, ErrLied},
		{"something else", once(frame(wire.Header{Length: wire.FetchSize, Code: uint8(wire.OpRead)}, good.Append(nil))), false, ErrLied},
		{"an answer", once(frame(wire.Header{Length: wire.FetchSize, Code: wire.StatusOK}, good.Append(nil))), false, ErrLied},
		{"at length", once(frame(wire.Header{Length: 1 << 30, Code: uint8(wire.OpFetch)}, make([]byte, 100))), false, ErrLied},
		{"in reserved bytes", func(f *os.File) {
			b := fetch(good)
			b[15] = 1
			f.Write(b)
		}, false, ErrLied},
		{"twice at once", once(bytes.Repeat(fetch(good), 2)), false, ErrLied},
		{"in a flood", once(bytes.Repeat(fetch(good), 10000)), false, ErrLied},
		{"when nothing is asked of it", forever, true, ErrLied},
		{"for ever", forever, false, ErrTimeout},
		{"in half", once(fetch(good)[:20]), false, ErrTimeout},
		{"and does not listen", func(f *os.File) {
			for i := 0; i < 1000; i++ {
				f.Write(fetch(wire.Fetch{Length: wire.MaxFetch}))
				time.Sleep(10 * time.Millisecond)
			}
		}, false, ErrTimeout},
	}
}

// beggarsContent is the socket for content, behind the one file that a beggar is
// given.
const beggarsContent = worker.FirstDisk + 1

// begIn is the life of a beggar.
func begIn(name string) int {
	for _, b := range beggars() {
		if b.name != name {
			continue
		}
		content := os.NewFile(beggarsContent, "content")
		l := liar{op: wire.OpVolumes, answer: func(id uint32, payload []byte) []byte {
			if b.idle {
				go func() {
					time.Sleep(200 * time.Millisecond)
					b.beg(content)
				}()
			} else {
				b.beg(content)
				time.Sleep(time.Hour)
			}
			return honest(wire.OpVolumes)(id, payload)
		}}
		return l.serve(os.NewFile(worker.Socket, "socket"))
	}
	return 1
}

// TestBeggars: a worker that asks for what it must not costs its disk one clear
// error.
func TestBeggars(t *testing.T) {
	for _, b := range beggars() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			opts := Options{Name: "web/root", Args: []string{"beggar", b.name}}
			if b.want == ErrTimeout {
				opts.RequestTimeout = 2 * time.Second
			}
			// Files come first among the descriptors, and here among the images too.
			content := &inMemory{Reader: bytes.NewReader(make([]byte, liarDisk))}
			file := liarSpec(t)
			file.Name = "file"
			d := startServed(t, opts, DiskSpec{Name: "root", Content: content, Format: Raw}, file)
			_, err := d.Volumes(t.Context())
			for range 200 {
				if err != nil || !b.idle {
					break
				}
				time.Sleep(50 * time.Millisecond)
				_, err = d.Volumes(t.Context())
			}
			e := new(Error)
			if !errors.Is(err, b.want) || !errors.As(err, &e) {
				t.Fatalf("got %v, want %v", err, b.want)
			}
			t.Log(err)
			if e.Disk != "web/root" || e.Reason == "" || e.Hint() == "" {
				t.Errorf("incomplete: %+v", e)
			}
			closed := make(chan struct{})
			go func() { d.Close(); close(closed) }()
			select {
			case <-closed:
			case <-time.After(10 * time.Second):
				t.Fatal("Close waits for the worker")
			}
			if n := content.reads.Load(); b.want == ErrLied && !b.idle && n > 2 {
				t.Errorf("%d reads of the content", n)
			}
		})
	}
}
