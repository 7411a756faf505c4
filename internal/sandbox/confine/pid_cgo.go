//go:build cgo

package confine

// pidNamespace is nothing in a build with cgo, which drydock is shipped without:
// there libpsx, by which Landlock reaches all threads, looks for them in
// /proc/PID/task, and never returns when /proc is that of another PID namespace.
// Seccomp and Landlock forbid the signals that the namespace would stop.
const pidNamespace = 0

const namespaceDetail = "network, mount, IPC and host name (no process namespace: built with cgo)"
