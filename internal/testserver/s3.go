package testserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/internal/testguest"
)

// The keys of an S3 server.
const (
	AccessKey = "drydock"
	SecretKey = "not a secret at all"
)

// VirtualDomain is the name whose subdomains are buckets.
const VirtualDomain = "s3.test"

// versitygwVersion is what scripts/install-deps builds.
const versitygwVersion = "v1.8.0"

// S3 starts versitygw on a folder, whose folders are buckets. Flags are its own.
func S3(t testing.TB, dir string, flags ...string) *Server {
	t.Helper()
	address := freeAddress(t)
	args := append([]string{
		"--port", address, "--access", AccessKey, "--secret", SecretKey, "--region", "us-east-1", "--quiet",
		"--virtual-domain", VirtualDomain, "posix", "--versioning-dir", t.TempDir(),
	}, flags...)
	return start(t, address, exec.Command(versitygw(t), append(args, dir)...))
}

// versitygw returns the program, which scripts/install-deps has built.
func versitygw(t testing.TB) string {
	t.Helper()
	path := filepath.Join(testguest.Cache(t), "bin", "versitygw-"+versitygwVersion)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("versitygw is missing: scripts/install-deps test builds it: %v", err)
	}
	return path
}
