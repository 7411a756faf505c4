//go:build linux

package testmount

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// Main runs the tests of a package in a mount namespace of their own, and ends the
// process. What they mount is gone when they are, however they end, and what others unmount
// is not kept by them.
func Main(m *testing.M) {
	const mark = "DRYDOCK_TEST_MOUNTS"
	if os.Geteuid() != 0 || os.Getenv(mark) != "" {
		os.Exit(m.Run())
	}
	path, err := exec.LookPath("unshare")
	if err == nil {
		args := append([]string{"unshare", "--mount", "--propagation", "slave", "--"}, os.Args...)
		err = syscall.Exec(path, args, append(os.Environ(), mark+"=1"))
	}
	fmt.Fprintln(os.Stderr, "a mount namespace for tests:", err)
	os.Exit(1)
}
