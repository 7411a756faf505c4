// Package writervm writes the files of a backup into a filesystem on a disk image,
// without mounting it on this host: in a machine that lives for that alone.
//
//	err := writervm.Write(ctx, "/srv/data.raw", "xfs", tree, writervm.Options{})
//
// The machine is QEMU with the image as its only disk, a serial port, and no network. It
// boots a kernel of this host; its only process is drydock itself (package guest), in an
// initramfs that is made in memory. The tree is told to it over the port (package wire).
//
// Supported is what the kernel's filesystem takes: names, types, owners, modes, times of
// modification and access to the nanosecond, extended attributes, ACLs, capabilities,
// hardlinks, holes, devices, FIFOs, sockets, flags of chattr. It needs QEMU for x86-64,
// and drydock has to be a static binary. [Options.Hollow] leaves the content of files out.
//
// # What it promises
//
// An error says that the image is worth nothing. Without one all is in the image, and
// the filesystem was unmounted; what a file lacks was told. The machine ends with drydock,
// also when that is killed, and leaves nothing behind. A machine in which nothing is
// written for minutes is stopped, and so is one that takes far longer than a slow host
// needs, whatever it says. What it says is bounded, and taken for hostile.
package writervm
