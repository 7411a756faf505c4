package confine

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// dropPrivileges makes the process an unprivileged one that no other process of
// its user may look into, and that dies with its parent.
func dropPrivileges() (string, error) {
	if syscall.Geteuid() == 0 {
		// These change all threads. With the last one the kernel clears all
		// capability sets but the bounding one, which no_new_privs makes moot.
		if err := syscall.Setgroups(nil); err != nil {
			return "", fmt.Errorf("drop supplementary groups: %w", err)
		}
		if err := syscall.Setresgid(nobody, nobody, nobody); err != nil {
			return "", fmt.Errorf("become group %d: %w", nobody, err)
		}
		if err := syscall.Setresuid(nobody, nobody, nobody); err != nil {
			return "", fmt.Errorf("become user %d: %w", nobody, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return "", fmt.Errorf("forbid debuggers and core dumps: %w", err)
	}
	// A change of user clears the setting that the parent made.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return "", fmt.Errorf("die with the parent: %w", err)
	}
	if err := checkNoCapabilities(); err != nil {
		return "", err
	}
	return fmt.Sprintf("user %d, no capabilities", syscall.Getuid()), nil
}

func checkNoCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // low and high 32 bits
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	for _, d := range data {
		if d.Effective|d.Permitted|d.Inheritable != 0 {
			return fmt.Errorf("the process of user %d keeps capabilities %#x", syscall.Getuid(),
				uint64(data[1].Permitted|data[1].Inheritable)<<32|uint64(data[0].Permitted|data[0].Inheritable))
		}
	}
	return nil
}
