// Package iso9660 reads ISO 9660 images of untrusted guests: installation media, and
// the seeds that cloud-init is given.
//
// It supports logical blocks of 512, 1024 and 2048 bytes, files of several extents,
// Rock Ridge with its deep directories, and Joliet. Of several trees it shows the one
// that Linux shows: Rock Ridge's, or Joliet's, or else the plain one, whose names
// are in lower case and without version numbers. What the tree in use does not keep is
// made up as Linux does: the owner is root, and every file has mode 0555. The format
// has no holes and no extended attributes; what Rock Ridge notes as hardlinks are files of
// their own. Associated files, and what a multisession disc had in earlier
// sessions, are not shown. Interleaved files, and the content of those that zisofs has
// compressed, are refused by name.
//
// It promises what package [disk] promises: the content or a [disk.Error], no panic,
// and memory that depends on named limits and never on what a disk claims. The format
// has no checksums. What the reader can verify, it does: structures and content that
// would lie behind the end, records that reach into the next sector, directories that do
// not start with themselves or share blocks are errors, of that file alone. Of numbers
// that are kept in both byte orders the little-endian one counts, as in Linux: some
// mastering programs leave the other one out.
//
//	fs, err := iso9660.Open(volume, iso9660.Options{})
//	err = fs.ReadDir(fs.Info().Root, func(e disk.DirEntry) error { ... })
//
// The layouts come from ECMA-119 (ISO 9660), the System Use Sharing Protocol (SUSP,
// IEEE P1281) and the Rock Ridge Interchange Protocol (RRIP, IEEE P1282), both of version
// 1.12, the Joliet specification of 1995, and the documentation of zisofs.
package iso9660
