package iso9660_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/iso9660"
)

// open is [iso9660.Open] with the usual options.
func open(d disk.Sparse) (disk.Filesystem, error) {
	fs, err := iso9660.Open(d, iso9660.Options{})
	if err != nil {
		return nil, err
	}
	return fs, nil
}

func openFilesystem(t testing.TB, d disk.Sparse) *iso9660.Filesystem {
	t.Helper()
	fs, err := iso9660.Open(d, iso9660.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// makeImage makes an image of what lies in a folder, with genisoimage or xorrisofs,
// which take the same options.
func makeImage(t testing.TB, tool, folder string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.iso")
	disktest.Run(t, tool, append(append([]string{"-quiet", "-input-charset", "utf-8", "-o", path}, args...), folder)...)
	return path
}

// tree is what a test puts on an image, by path: content of files, and nil for
// directories.
type tree map[string][]byte

// write makes the files in a new folder, each with a time of its own.
func (s tree) write(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	i := 0
	for name, content := range s {
		at := filepath.Join(dir, name)
		folder := at
		if content != nil {
			folder = filepath.Dir(at)
		}
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if content == nil {
			continue
		}
		if err := os.WriteFile(at, content, 0o644); err != nil {
			t.Fatal(err)
		}
		when := time.Date(1980+i%100, time.Month(1+i%12), 1+i%28, i%24, i%60, i%60, 0, time.UTC)
		if err := os.Chtimes(at, when, when); err != nil {
			t.Fatal(err)
		}
		i++
	}
	return dir
}

// everything is a tree of all kinds of names and sizes.
func everything() tree {
	s := tree{
		"README.TXT": []byte("upper"), "names/lower.txt": []byte("lower"), "names/Mixed.Txt": []byte("mixed"), "names/noext": []byte("n"),
		"names/two.dots.txt": []byte("d"), "names/with blank.a b": []byte("b"), "names/.hidden": []byte("h"), "names/größe ⚓ 漢字.txt": []byte("unicode"),
		"empty-dir": nil, "a/b/c/d/e/f/g/h/i/j/k/deep": []byte("deep"), "a/b/c/d/e/f/g/h/i/other": []byte("less deep"),
	}
	for i, size := range []int{0, 1, 2047, 2048, 2049, 100_000} {
		s[fmt.Sprintf("sizes/%02d", i)] = bytes.Repeat([]byte(fmt.Sprintf("%02d.", i)), size)[:size]
	}
	for i := range 300 { // a directory of many sectors
		s[fmt.Sprintf("many/file-%d.conf", i)] = []byte(fmt.Sprint(i))
	}
	return s
}

// addPosix adds what only Rock Ridge keeps.
func addPosix(t testing.TB, tool, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	targets := map[string]string{
		"relative": "README.TXT", "absolute": "/etc/passwd", "up": "../../..", "mixed": "/./a/.././b", "dangling": "no where at all", "root": "/",
		"long": strings.Repeat("component/../", 12) + "end",
	}
	var errs []error
	if tool == "xorrisofs" { // genisoimage writes the half of these
		targets["very-long"] = strings.Repeat("component/../", 60) + "end"
		targets["one-component"] = strings.Repeat("l", 255)
	}
	for name, target := range targets {
		errs = append(errs, os.Symlink(target, at(name)))
	}
	for i, n := range []int{1, 30, 31, 32, 33, 100, 222, 253, 254, 255} { // around where system use needs another area
		name := strings.Repeat(string(rune('A'+i)), n)
		errs = append(errs, os.WriteFile(at(name), []byte(name), 0o640), os.Chown(at(name), 1000+i, 1<<31-1-i))
	}
	errs = append(errs,
		unix.Mkfifo(at("fifo"), 0o600),
		unix.Mknod(at("char"), unix.S_IFCHR|0o620, int(unix.Mkdev(1, 3))),
		unix.Mknod(at("block"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 100))),
		unix.Mknod(at("socket"), unix.S_IFSOCK|0o777, 0),
		os.Chmod(at("README.TXT"), 0o4755|os.ModeSetuid), os.Chmod(at("empty-dir"), 0o777|os.ModeSticky),
		os.Link(at("README.TXT"), at("hardlink")),
	)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
