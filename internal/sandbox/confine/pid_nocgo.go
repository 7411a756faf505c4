//go:build !cgo

package confine

import "syscall"

// pidNamespace is what keeps other processes out of the worker's sight.
const pidNamespace = syscall.CLONE_NEWPID

const namespaceDetail = "network, process, mount, IPC and host name"
