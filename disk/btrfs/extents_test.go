package btrfs_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk/btrfs"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

var extentSeeds = flag.Int("extent-seeds", 1, "how many times random changes to content are compared with the kernel, in each form")

// extentForms are how filesystems are made, and the options that they are mounted
// with by turns.
var extentForms = []struct {
	name   string
	mkfs   []string
	mounts []string
}{
	{"plain", nil, []string{"compress=no,max_inline=2048", "compress=zstd:15"}},
	{"holes-4k", []string{"-n", "4096", "-O", "^no-holes", "--csum", "sha256"}, []string{"compress=lzo,max_inline=2000", "compress=no", "compress-force=zlib:9"}},
	{"mixed", []string{"-M", "-O", "^no-holes"}, []string{"compress-force=zstd:1,max_inline=100", "nodatacow", "compress=lzo"}},
	{"node-64k", []string{"-n", "65536", "--csum", "blake2"}, []string{"compress=zlib:1", "compress-force=lzo,max_inline=4095"}},
	{"quota-dup", []string{"-R", "quota", "-m", "dup", "-d", "dup"}, []string{"compress-force=zstd", "nodatasum"}},
}

// TestExtents does random things to the content of a few files, takes snapshots in
// between, and compares what comes of that with the kernel.
func TestExtents(t *testing.T) {
	for i, f := range extentForms {
		for seed := range uint64(*extentSeeds) {
			t.Run(fmt.Sprintf("%s/%d", f.name, seed), func(t *testing.T) {
				paths := makeImages(t, 1, 256<<20, f.mkfs...)
				dir, unmount := mount(t, paths, f.mounts[0])
				w := &extentWork{crash: &crash{t: t, dir: dir, rand: rand.New(rand.NewPCG(uint64(i), seed))}}
				disktest.Run(t, "btrfs", "subvolume", "create", w.path("work"))
				const rounds, steps = 6, 50
				for round := range rounds {
					if round > 0 {
						disktest.Run(t, "mount", "-o", "remount,"+f.mounts[round%len(f.mounts)], dir)
					}
					for range steps {
						w.step()
					}
					disktest.Run(t, "btrfs", "subvolume", "snapshot", w.path("work"), w.path(fmt.Sprintf("snapshot-%d", round)))
				}
				disktest.Run(t, "btrfs", "subvolume", "delete", w.path("snapshot-2"))
				unmount()
				fs := openFilesystem(t, paths, btrfs.Options{})
				compare(t, paths, fs, "")
				checkUsage(t, fs, paths)
			})
		}
	}
}

// extentWork changes the content of files.
type extentWork struct{ *crash }

// maxExtentWork is how large the files become, in bytes.
const maxExtentWork = 500_000

func (w *extentWork) open() *os.File {
	f, err := os.OpenFile(w.path(fmt.Sprintf("work/f%d", w.rand.IntN(8))), os.O_RDWR|os.O_CREATE, 0o644)
	w.must(err)
	return f
}

// offset is one that is often aligned, and size one that is often small.
func (w *extentWork) offset() int64 {
	off := w.rand.Int64N(maxExtentWork)
	if w.rand.IntN(2) == 0 {
		off &^= 4095
	}
	return off
}

func (w *extentWork) size() int64 { return 1 + w.rand.Int64N(1<<(1+w.rand.IntN(18))) }

// content is some that compresses, or does not, or both.
func (w *extentWork) content(n int64) []byte {
	p := bytes.Repeat(fmt.Appendf(nil, "%016x", w.rand.Uint64()), int(n)/16+1)[:n]
	if kind := w.rand.IntN(4); kind < 2 {
		for i := range p[:int(n)/(1+kind)] {
			p[i] = byte(w.rand.Uint32())
		}
	}
	return p
}

func (w *extentWork) step() {
	f := w.open()
	defer f.Close()
	var err error
	switch w.rand.IntN(14) {
	case 0, 1, 2, 3:
		_, err = f.WriteAt(w.content(w.size()), w.offset())
	case 4: // of a size that is kept in the item
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteAt(w.content(1+w.rand.Int64N(5000)), 0)
		}
	case 5:
		err = f.Truncate(w.offset())
	case 6:
		var info os.FileInfo
		if info, err = f.Stat(); err == nil {
			_, err = f.WriteAt(w.content(w.size()), info.Size())
		}
	case 7, 8:
		mode := []uint32{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE}[w.rand.IntN(4)]
		err = unix.Fallocate(int(f.Fd()), mode, w.offset(), w.size())
	case 9:
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, w.offset(), w.size())
	case 10, 11:
		err = w.clone(f)
	default:
		err = f.Sync()
	}
	w.must(err)
}

// clone makes some of another file, or of this one, a part of f. It may be that
// there is nothing to clone, or that the two do not go together.
func (w *extentWork) clone(f *os.File) error {
	from := w.open()
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	blocks := info.Size() / 4096
	if blocks == 0 {
		return nil
	}
	first := w.rand.Int64N(blocks)
	r := unix.FileCloneRange{
		Src_fd: int64(from.Fd()), Src_offset: uint64(first * 4096), Src_length: uint64(1+w.rand.Int64N(blocks-first)) * 4096,
		Dest_offset: uint64(w.offset() &^ 4095),
	}
	err = unix.IoctlFileCloneRange(int(f.Fd()), &r)
	if errors.Is(err, unix.EINVAL) { // it overlaps, or only one of the two has checksums
		return nil
	}
	return err
}
