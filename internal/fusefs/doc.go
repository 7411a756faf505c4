// Package fusefs shows a guest's filesystem as a folder of this host, for
// reading only, through FUSE: every program of the host can look at a backup or
// a disk without the kernel parsing what the guest wrote.
//
// It supports whatever a [disk.Filesystem] does: all file types, hardlinks,
// extended attributes, times to the nanosecond, holes, and names and link targets
// of any bytes. The kernel keeps what it has seen, since a disk does not change
// while it is mounted.
//
// It promises that inodes are found by their number and never by a path, that a
// directory is read once and not once for each file, that memory is bounded by
// named limits, and that every error of the disk becomes the fitting errno for
// the program that reads and one call of [Options.Report].
//
// Only a file called ".go-fuse-epoll-hack" in the root cannot be seen: the FUSE
// library needs that name.
//
// A mount is read-only, and setuid bits and device nodes in it mean nothing.
// Symlinks mean what they say: one to /etc/passwd leads to the host's.
//
//	m, err := fusefs.Mount("/mnt", fsys, fusefs.Options{FSName: "web1"})
//	...
//	err = m.Unmount()
//
// A mount whose process was killed is removed with "fusermount3 -u DIR".
package fusefs
