//go:build linux

package testguest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/internal/flock"
)

// Ports of guests lie below the range from which Linux takes the ports of
// outgoing connections (32768), so that a port stays free while its guest is
// down.
const (
	firstPort = 20000
	portCount = 4000
)

// reservePort returns a port of 127.0.0.1 that is free, and that no other
// test process on this machine is given before this test has ended. The
// kernel drops the reservation of a process that died.
func reservePort(t testing.TB) int {
	t.Helper()
	folder := filepath.Join(os.TempDir(), "drydock-testguest-ports")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range portCount {
		port := firstPort + (os.Getpid()+i)%portCount
		lock, err := flock.Take(filepath.Join(folder, fmt.Sprint(port)), "test")
		if err != nil {
			continue
		}
		if !bindable(port) {
			lock.Release()
			continue
		}
		t.Cleanup(func() { lock.Release() })
		return port
	}
	t.Fatalf("no free port between %d and %d", firstPort, firstPort+portCount)
	return 0
}

func bindable(port int) bool {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	listener.Close()
	return true
}
