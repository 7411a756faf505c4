package fusefs_test

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/benchdisk"
	"github.com/drydock-vm/drydock/internal/fusefs"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// TestCompareRead measures how long it takes to read a tree of 40,000 small files,
// and a file of 256 MiB, through FUSE and through the kernel's mount.
func TestCompareRead(t *testing.T) {
	benchdisk.Wanted(t)
	image := makeImage(t, func(dir string) {
		random := rand.NewChaCha8([32]byte{5})
		part := make([]byte, 1<<20)
		for i := range 40_000 {
			folder := filepath.Join(dir, "tree", fmt.Sprint(i/100))
			random.Read(part[:i%4000])
			if err := os.MkdirAll(folder, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprint(i)), part[:i%4000], 0o644); err != nil {
				t.Fatal(err)
			}
		}
		f, err := os.Create(filepath.Join(dir, "large"))
		if err != nil {
			t.Fatal(err)
		}
		for range 256 {
			random.Read(part)
			if _, err := f.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	})
	for range 3 {
		dir, unmount := testmount.Image(t, image, "ro,noatime")
		t.Logf("kernel: %v", readTimes(t, dir))
		unmount()
		m := mount(t, openImage(t, image), fusefs.Options{})
		t.Logf("FUSE:   %v", readTimes(t, m.dir))
	}
}

// readTimes reads all there is, the first time and again from what the kernel
// keeps.
func readTimes(t *testing.T, dir string) string {
	report := ""
	for _, name := range []string{"tree", "tree", "large"} {
		begin := time.Now()
		err := filepath.WalkDir(filepath.Join(dir, name), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(io.Discard, f)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		report += fmt.Sprintf(" %s %v", name, time.Since(begin).Round(time.Millisecond))
	}
	return report
}
