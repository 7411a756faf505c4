// Package tarball writes files and folders of any filesystem as a tar archive.
//
//	report, err := tarball.Write(ctx, os.Stdout, fsys, []byte("/var/lib"), tarball.Options{})
//
// The archive is in the PAX format, for GNU tar, libarchive and Go's archive/tar.
// It keeps names as bytes, types, permission bits, numeric owners, times of
// modification to the nanosecond, symlinks, hardlinks, devices, FIFOs, extended
// attributes with ACLs and capabilities (SCHILY.xattr.*; GNU tar restores them with
// --xattrs --xattrs-include='*'), and holes (GNU's sparse format 1.0). It does not keep
// times of access and of change, which would make every archive new, names of
// owners, and sockets, which tar has no type for. The same tree always makes the
// same bytes.
//
// # What is damaged
//
// A file that cannot be opened, and one of up to 1 MiB that cannot be read, is not
// in the archive. A larger one is found to be damaged when its header, with its
// size, is written already: what cannot be read of it is zeros in the archive, as
// GNU tar does it, and the report says of which file and from which byte on. An
// archive that could not be written to its end has no end mark, which every tar
// notices.
//
// # What it promises
//
// The source is hostile: names that could leave the folder that the archive is
// unpacked to are refused, folders in themselves are not followed, and memory is
// bounded. Targets of symlinks are what the guest made them: unpack with a tar that
// does not write through the symlinks that it unpacked, such as GNU tar.
package tarball
