package testguest

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// debianPackages make an installation of some 40,000 files: documents in many
// languages, headers and sources beside what a server has.
const debianPackages = "systemd-sysv,python3,git,iputils-ping,manpages-dev,libboost1.74-dev,golang-1.19-src"

// DebianTar returns the path of a tar of a Debian root filesystem of more than
// 30,000 files, with owners, hardlinks, devices and capabilities, as its packages
// install them. It is made once and kept in the cache.
func DebianTar(t testing.TB) string {
	t.Helper()
	cache, err := cacheFolder()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cache, "debian", "root.tar")
	if _, err := os.Stat(path); err == nil {
		return path
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	temporary := path + "." + strconv.Itoa(os.Getpid())
	defer os.Remove(temporary)
	c := exec.Command("mmdebstrap", "--quiet", "--format=tar", "--variant=apt", "--dpkgopt=force-unsafe-io",
		`--aptopt=APT::Install-Recommends "false"`, "--include="+debianPackages, "bookworm", temporary)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, out)
	}
	if err := os.Rename(temporary, path); err != nil {
		t.Fatal(err)
	}
	return path
}
