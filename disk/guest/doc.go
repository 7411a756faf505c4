// Package guest shows the filesystems of a VM as its guest sees them: one tree,
// put together by the guest's own /etc/fstab.
//
// It finds the root filesystem, or takes the one that is named, reads its fstab,
// and puts the other filesystems and subvolumes where the guest mounts them at
// boot. What a mounted filesystem hides is not shown. Swap space, what lives in
// memory, and what the guest itself mounts on demand only (noauto) is left out.
//
// It promises what package [disk] promises, and that nothing is left out
// silently: a mount that cannot be resolved or read, and a filesystem that the
// fstab does not mention, is a remark of [Filesystem.Info].
//
//	l, err := layout.Read(disks)
//	g, err := guest.Open(l, guest.Options{})
//	inode, err := disk.Lookup(g, []byte("/home/ada"))
//
// The form of fstab is that of fstab(5), as util-linux and systemd read it.
package guest
