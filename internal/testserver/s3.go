package testserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/testguest"
)

// The keys of an S3 server.
const (
	AccessKey = "drydock"
	SecretKey = "not a secret at all"
)

// VirtualDomain is the name whose subdomains are buckets.
const VirtualDomain = "s3.test"

// versitygw is the module of the server; built once, into the cache.
const versitygw = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"

// S3 starts versitygw on a folder, whose folders are buckets. Flags are its own.
func S3(t testing.TB, dir string, flags ...string) *Server {
	t.Helper()
	address := freeAddress(t)
	args := append([]string{
		"--port", address, "--access", AccessKey, "--secret", SecretKey, "--region", "us-east-1", "--quiet",
		"--virtual-domain", VirtualDomain, "posix", "--versioning-dir", t.TempDir(),
	}, flags...)
	return start(t, address, exec.Command(buildVersitygw(t), append(args, dir)...))
}

// buildVersitygw returns the program, which one process at a time builds if it is not
// there: that takes a minute.
func buildVersitygw(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(testguest.Cache(t), filepath.Base(versitygw))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }() // gives the lock back
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "versitygw")
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	build := exec.Command("go", "install", versitygw)
	build.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go install %s: %v\n%s", versitygw, err, out)
	}
	return binary
}
