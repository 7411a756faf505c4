package confine

import (
	"errors"
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsyscall "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// applyLandlock forbids everything that the kernel's Landlock can forbid: there
// is no rule that allows anything. ABI 1 closes the filesystem, 4 TCP, 5 device
// ioctls, 6 abstract sockets and signals to processes outside. Any of them
// counts as Landlock; what an old ABI leaves open, seccomp closes too.
func applyLandlock() (string, error) {
	abi, err := llsyscall.LandlockGetABIVersion()
	if err != nil {
		return "", fmt.Errorf("the kernel has no Landlock, or it is not enabled at boot (lsm=): %w", err)
	}
	if err := landlock.V11.BestEffort().Restrict(); err != nil {
		return "", fmt.Errorf("restrict: %w", err)
	}
	f, err := os.Open("/")
	if err == nil {
		f.Close()
		return "", errors.New("a folder could be opened in spite of Landlock")
	}
	if !errors.Is(err, os.ErrPermission) {
		return "", fmt.Errorf("opening a folder failed, but not for Landlock: %w", err)
	}
	return fmt.Sprintf("ABI %d, nothing allowed", abi), nil
}
