package confine

import (
	"os"
	"syscall"
)

// nobody is the user and group that a worker runs as, where it can choose.
const nobody = 65534

const isolated = syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS |
	syscall.CLONE_NEWNS | pidNamespace

// CloneAttempts returns the ways to start a process in namespaces of its own, in
// the order in which to try them. Root needs no user namespace. Anybody else
// does, and so does root in a container without CAP_SYS_ADMIN.
func CloneAttempts() []*syscall.SysProcAttr {
	plain := Unisolated()
	plain.Cloneflags = isolated

	user := Unisolated()
	user.Cloneflags = isolated | syscall.CLONE_NEWUSER
	// Inside, the process is nobody: with the exec it loses the capabilities
	// that it had over its new namespaces.
	user.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Geteuid(), Size: 1}}
	user.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getegid(), Size: 1}}

	if os.Geteuid() == 0 {
		return []*syscall.SysProcAttr{plain, user}
	}
	return []*syscall.SysProcAttr{user}
}

// Unisolated is how a process is started that shares its parent's namespaces.
// Like every worker it dies with its parent.
func Unisolated() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
