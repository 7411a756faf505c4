package guest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/guest"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/disk/qcow2"
)

var (
	corpus       = flag.String("corpus", "", "a folder of disk images to read, instead of those in testdata: see scripts/corpus")
	corpusTime   = flag.Duration("corpus-time", 0, "how long reading one of them may take; 0 is any time")
	corpusDamage = flag.Int("corpus-damage", 20, "how many damaged copies of each are read, too")
)

// corpusMemory is how much memory reading a disk may take: 64 MiB, the caches of its
// filesystems, and as much again that waits to be freed.
const corpusMemory = 256 << 20

// TestCorpus reads disk images of any kind and state. For each there is content or
// an error that says where, in bounded memory and time, and the same for copies
// that are damaged at random, where the reader looks.
func TestCorpus(t *testing.T) {
	paths := corpusPaths(t)
	if *corpus == "" && len(paths) < 20 {
		t.Errorf("testdata has only %d images", len(paths))
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			m := corpusImage(t, path)
			isQcow2 := strings.Contains(filepath.Base(path), "qcow2")
			r := &disktest.Recorder{Image: m}
			checkCorpus(t, "as it is", r, isQcow2)
			ranges := r.Ranges()
			if len(ranges) == 0 {
				return
			}
			sum := fnv.New64a()
			sum.Write([]byte(filepath.Base(path)))
			random := rand.New(rand.NewPCG(sum.Sum64(), 1))
			for range *corpusDamage {
				d, what := spoil(m, ranges, random)
				checkCorpus(t, what, d, isQcow2)
			}
		})
	}
}

func corpusPaths(t *testing.T) []string {
	t.Helper()
	if *corpus == "" {
		paths, err := filepath.Glob("../*/testdata/*.img.gz")
		if err != nil {
			t.Fatal(err)
		}
		return paths
	}
	var paths []string
	err := filepath.WalkDir(*corpus, func(path string, e fs.DirEntry, err error) error {
		if st, _ := os.Stat(path); err == nil && !e.IsDir() && st != nil && st.Mode().IsRegular() { // a link to one, too
			paths = append(paths, path)
		}
		return err
	})
	if err != nil || len(paths) == 0 {
		t.Fatalf("no images in %s: %v", *corpus, err)
	}
	return paths
}

// unpackers are the programs that unpack what corpora come in.
var unpackers = map[string]string{".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}

// corpusImage opens an image, unpacked into a file with holes.
func corpusImage(t *testing.T, path string) disktest.Image {
	t.Helper()
	tool := unpackers[filepath.Ext(path)]
	if tool == "" {
		return disktest.OpenImage(t, path)
	}
	to, err := os.Create(filepath.Join(t.TempDir(), "image"))
	must(t, err)
	defer to.Close()
	cmd := exec.Command(tool, "-dc", path)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var size int64
	for buf := make([]byte, 64<<10); ; {
		n, err := io.ReadFull(out, buf)
		if !bytes.Equal(buf[:n], make([]byte, n)) {
			_, err := to.WriteAt(buf[:n], size)
			must(t, err)
		}
		if size += int64(n); err != nil {
			break
		}
	}
	must(t, cmd.Wait())
	must(t, to.Truncate(size))
	return disktest.OpenImage(t, to.Name())
}

// spoil returns an image with up to four numbers changed where it was read, or one
// that ends early.
func spoil(m disktest.Image, ranges []disk.Extent, random *rand.Rand) (disk.Sparse, string) {
	if random.IntN(10) == 0 {
		m.Length = ranges[random.IntN(len(ranges))].Offset + random.Int64N(512)
		return m, fmt.Sprintf("cut to %d bytes", m.Length)
	}
	what := "with"
	for range 1 + random.IntN(4) {
		r := ranges[random.IntN(len(ranges))]
		at := r.Offset + random.Int64N(max(r.Length, 1))
		number := make([]byte, 8)
		binary.LittleEndian.PutUint64(number, [...]uint64{0, 1, ^uint64(0), 1 << 31, random.Uint64()}[random.IntN(5)])
		number = number[:1<<random.IntN(4)]
		m.ReaderAt = disktest.Patched{Image: m, Off: at, Data: number}
		what += fmt.Sprintf(" %x at %#x", number, at)
	}
	return m, what
}

// checkCorpus reads all of a disk, and fails a test where that takes too much, or
// gives an error that does not say where.
func checkCorpus(t *testing.T, what string, d disk.Sparse, isQcow2 bool) {
	t.Helper()
	start := time.Now()
	done := make(chan []error, 1)
	go func() { done <- readCorpus(d, isQcow2) }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case errs := <-done:
			for _, err := range errs {
				checkCorpusError(t, what, err)
			}
			if *corpus != "" {
				t.Logf("%s: %.1f s, %.200v", what, time.Since(start).Seconds(), errors.Join(errs...))
			}
			return
		case <-tick.C:
			var mem runtime.MemStats
			if runtime.ReadMemStats(&mem); mem.HeapAlloc > corpusMemory {
				t.Errorf("%s: %d bytes of memory", what, mem.HeapAlloc)
			}
			if *corpusTime > 0 && time.Since(start) > *corpusTime {
				t.Fatalf("%s: more than %v", what, *corpusTime)
			}
		}
	}
}

// readCorpus reads all volumes of a disk, and what its guest would see, and returns
// the first error of each.
func readCorpus(d disk.Sparse, isQcow2 bool) (errs []error) {
	if isQcow2 {
		image, err := qcow2.Open(d, d.Size(), qcow2.Options{})
		if err != nil {
			return []error{err}
		}
		d = image
	}
	l, err := layout.Read([]layout.Disk{{Name: "vda", Content: d}})
	if err != nil {
		return []error{err}
	}
	for i, v := range l.Volumes() {
		if v.Err != nil {
			errs = append(errs, v.Err)
		}
		if !v.Readable {
			continue
		}
		fs, err := l.Open(i)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, disktest.WalkLeniently(fs, nil))
		if u, ok := fs.(disk.Usage); ok {
			errs = append(errs, u.Used(0, func(int64, int64) error { return nil }))
		}
	}
	g, err := guest.Open(l, guest.Options{})
	if err == nil {
		err = disktest.WalkLeniently(g, nil)
	}
	return append(errs, err)
}

func checkCorpusError(t *testing.T, what string, err error) {
	t.Helper()
	var detail *disk.Error
	switch {
	case err == nil || errors.Is(err, disktest.ErrTooMuch):
	case !errors.As(err, &detail) || detail.Layer == "" || detail.Structure == "":
		t.Errorf("%s: not a disk.Error that names a structure: %v", what, err)
	}
}
