// Package newimage makes a disk image with a new filesystem that has the files of a
// backup in it, without mounting the image.
//
//	report, err := newimage.Make(ctx, tree, "/srv/data.raw", newimage.Options{Filesystem: "ext4", Size: 20 << 30, …})
//
// Writing filesystems is left to programs and kernels that do nothing else. What is not
// in the image as it is in the backup is told: the new image is read back, by the
// confined reader, and compared with the backup.
//
//   - ext4: mke2fs -d reads the files through a FUSE mount of the backup. It drops the
//     nanoseconds and years after 2038, which are put in with debugfs; e2fsck -D then
//     gives large folders their index. Attributes that do not fit into a block take the
//     feature ea_inode.
//   - XFS and btrfs: mkfs makes an empty filesystem, into which the machine of package
//     writervm writes the files, in btrfs into the subvolumes that they were in, with
//     content once that several have. mkfs.xfs -p takes no names with spaces, no attributes,
//     no hardlinks and no times, and mkfs.btrfs --rootdir no times and wrong device
//     numbers.
//
// [MakeSkeleton] makes the filesystem alone, without the content of files, for who
// shows the backup as a disk.
//
// # What it promises
//
// The target has its name only when it is whole and durable. What a run that was
// killed left behind (.NAME.drydock-partial, and a dead mount) is removed by the next
// one. A file that is damaged in the backup is left out and reported; that begins an
// ext4 anew. The programs see file names and content of a hostile guest, but no
// filesystem that one made.
package newimage
