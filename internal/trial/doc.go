// Package trial starts a virtual machine from disks that are not its own, apart from
// the world, and tells how long it takes until it is healthy.
//
//	result, err := trial.Run(ctx, trial.Options{
//		Name: "web", Folder: "/run/drydock/boot/web", Scratch: "/var/lib/drydock/work/boot/web",
//		Command: command, Disks: []trial.Disk{{Name: "root", Path: "/srv/web.qcow2", Content: backup}}, …})
//
// The machine is the VM's own command, rewritten ([Rewrite]) by lists of what is
// known: what is on none of them is refused by name.
//
//   - Disks: each is a qcow2 overlay in the scratch folder, which is thrown away, over
//     the content, which QEMU reads from this process over NBD. A file that the command
//     would write to and that is no disk is copied (firmware variables) or refused.
//   - Network: QEMU's user mode with restrict=on: the guest reaches nobody, and nobody
//     reaches it but the probes, on ports of the host's loopback that are found anew.
//   - Monitors, displays, serial and character devices are left out or end in nothing;
//     the first serial console goes to a file, for probes.
//   - Devices of the host, shared folders and the like are refused.
//
// # What it promises
//
// The VM itself, running or not, and its disks are not touched. When [Run] returns,
// the machine is gone, and the folders with it. What a process leaves that is killed,
// the next [Run] or [Sweep] for that folder ends and removes. A guest that fills the disk
// of the scratch folder is ended before that is full.
package trial
