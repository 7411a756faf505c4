// Package ext4 reads ext2, ext3 and ext4 filesystems of untrusted guests: the
// tree with every attribute, the content with its holes, and, when the guest
// did not unmount cleanly, the state that its journal holds.
//
// It supports block sizes of 1 to 64 KiB, extents and indirect block maps,
// inline data, directories of every kind, extended attributes wherever they
// live, and the features that mke2fs of e2fsprogs 1.47 can turn on. The content
// of encrypted files and external journals are refused by name.
//
// It promises what package [disk] promises: the content or a [disk.Error], no
// panic, and memory that depends on named limits and never on what a disk
// claims. Where metadata_csum is on, every structure that is used is verified
// first. A filesystem that needs its journal is never read without it: [Open]
// replays it into a table of replaced blocks, and its fast commits into a small
// model of changed inodes and directories, and writes nothing.
//
// It knows which blocks are in use ([Filesystem.Used]) and where the content of
// files lies on the disk ([disk.Locator]).
//
//	fs, err := ext4.Open(volume, ext4.Options{})
//	err = fs.ReadDir(fs.Info().Root, func(e disk.DirEntry) error { ... })
//
// The layouts come from Documentation/filesystems/ext4 of Linux; the rules for
// what is valid are those of Linux and e2fsck, whichever is stricter, as far as
// no filesystem in use breaks them.
package ext4
