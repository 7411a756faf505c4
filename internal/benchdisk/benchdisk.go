// Package benchdisk makes the guest disks on which benchmarks compare drydock
// with other programs, and keeps them from one run to the next.
package benchdisk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/testmount"
)

// Wanted skips a benchmark that was not asked for: it would take minutes.
func Wanted(t testing.TB) {
	t.Helper()
	if os.Getenv("DRYDOCK_BENCH") == "" {
		t.Skip("a benchmark of minutes: make bench-disk runs it")
	}
}

// folder is where the disks are kept: what DRYDOCK_BENCH_DISKS names, or a folder
// of this machine's.
func folder() string {
	if dir := os.Getenv("DRYDOCK_BENCH_DISKS"); dir != "" {
		return dir
	}
	return "/var/tmp/drydock-bench"
}

// System returns a raw image of a filesystem of the given type, made by the host's
// kernel: 37,000 files of 1.5 GB, 20,000 of them in one folder.
func System(t testing.TB, fstype string) string {
	t.Helper()
	return image(t, "system", fstype, "", 3<<30, writeSystem)
}

// Compressed is System on a btrfs that compresses with zstd.
func Compressed(t testing.TB) string {
	t.Helper()
	return image(t, "compressed", "btrfs", "compress=zstd", 3<<30, writeSystem)
}

// Packed is System in a qcow2 that qemu-img has compressed with zlib, its default.
func Packed(t testing.TB, fstype string) string {
	t.Helper()
	raw := System(t, fstype)
	path := strings.TrimSuffix(raw, ".raw") + ".qcow2"
	if _, err := os.Stat(path); err == nil {
		return path
	}
	run(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, path+".part")
	if err := os.Rename(path+".part", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// SystemFiles is how many files System has at least.
const SystemFiles = 37_000

// Million returns a raw image of a filesystem of a million small files.
func Million(t testing.TB, fstype string) string {
	t.Helper()
	return image(t, "million", fstype, "", 8<<30, writeMillion)
}

// mkfs makes the filesystems.
var mkfs = map[string][]string{
	"ext4":  {"mke2fs", "-q", "-F", "-t", "ext4", "-i", "4096"},
	"xfs":   {"mkfs.xfs", "-q", "-f"},
	"btrfs": {"mkfs.btrfs", "-q", "-f"},
}

func image(t testing.TB, name, fstype, options string, size int64, write func(dir string) error) string {
	t.Helper()
	path := filepath.Join(folder(), name+"."+fstype+".raw")
	if _, err := os.Stat(path); err == nil {
		return path
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.MkdirAll(folder(), 0o755); err != nil {
		t.Fatal(err)
	}
	part := path + ".part"
	if err := os.RemoveAll(part); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(part, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(part, size); err != nil {
		t.Fatal(err)
	}
	run(t, append(slices.Clone(mkfs[fstype]), part)...)
	dir, unmount := testmount.Image(t, part, options)
	err := write(dir)
	unmount()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(part, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func run(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
}

func writeSystem(dir string) error {
	w := newWriter()
	many := filepath.Join(dir, "many")
	if err := os.Mkdir(many, 0o755); err != nil {
		return err
	}
	for i := range 20_000 {
		if err := w.file(filepath.Join(many, fmt.Sprintf("file number %05d.dat", i)), 100+w.rng.IntN(16_000)); err != nil {
			return err
		}
	}
	for i := range 1_000 {
		sub := filepath.Join(dir, "usr", fmt.Sprintf("group%02d", i%40), fmt.Sprintf("package-%04d", i))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
		for j := range 17 {
			// Few are large, most are small: 1 KiB to 1 MiB.
			size := 1024 << w.rng.IntN(1+w.rng.IntN(11))
			if err := w.file(filepath.Join(sub, fmt.Sprintf("item-%d", j)), size-w.rng.IntN(500)); err != nil {
				return err
			}
		}
	}
	for i := range 12 {
		if err := w.file(filepath.Join(dir, fmt.Sprintf("large-%d", i)), 25<<20); err != nil {
			return err
		}
	}
	return nil
}

func writeMillion(dir string) error {
	w := newWriter()
	for i := range 1_000 {
		sub := filepath.Join(dir, fmt.Sprintf("%03d", i))
		if err := os.Mkdir(sub, 0o755); err != nil {
			return err
		}
		for j := range 1_000 {
			if err := w.file(filepath.Join(sub, fmt.Sprintf("a small file %03d", j)), 1+w.rng.IntN(200)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Contender is one of the things that a benchmark compares.
type Contender struct {
	Name string
	Run  func() error
}

// Compare runs the contenders in turn, rounds times, and reports the median of
// each and its ratio to the first. It returns the medians. before, unless it is
// nil, comes before each run and is not counted.
func Compare(t testing.TB, rounds int, before func() error, contenders ...Contender) []time.Duration {
	t.Helper()
	times := make([][]time.Duration, len(contenders))
	for range rounds {
		for i, c := range contenders {
			if before != nil {
				if err := before(); err != nil {
					t.Fatal(err)
				}
			}
			start := time.Now()
			if err := c.Run(); err != nil {
				t.Fatalf("%s: %v", c.Name, err)
			}
			times[i] = append(times[i], time.Since(start))
		}
	}
	medians := make([]time.Duration, len(contenders))
	for i, c := range contenders {
		slices.Sort(times[i])
		medians[i] = times[i][rounds/2]
		t.Logf("%-32s median %8.3f s  (%.3f to %.3f)  %s / this: %.2f", c.Name, medians[i].Seconds(),
			times[i][0].Seconds(), times[i][rounds-1].Seconds(), contenders[0].Name, medians[0].Seconds()/medians[i].Seconds())
	}
	return medians
}

// FolderSize is how many bytes the files in a folder have.
func FolderSize(t testing.TB, dir string) (size int64) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return size
}
