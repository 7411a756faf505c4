// Package xfs reads XFS filesystems of untrusted guests: the tree with every
// attribute, the content with its holes, and, when the guest did not unmount
// cleanly, the state that its log holds.
//
// It supports versions 4 and 5 with blocks of 512 bytes to 64 KiB, directories
// and extended attributes of every form, and the features that mkfs.xfs of
// xfsprogs 6.16 turns on. Files on a realtime device, external logs, metadata
// directories and zoned devices are refused by name.
//
// It promises what package [disk] promises: the content or a [disk.Error], no
// panic, and memory that depends on named limits and never on what a disk
// claims. In version 5 every structure that is used is verified first: its
// checksum, its place, its owner, and that it is no newer than the log. A
// filesystem that needs its log is never read without it: [Open] replays it into
// a table of replaced bytes and writes nothing. What was begun and not ended is
// ended in that table, or the one file is refused. A damaged tree of inodes costs no
// file in version 5, whose inodes say which they are; a remark tells of it.
//
//	fs, err := xfs.Open(volume, xfs.Options{})
//	err = fs.ReadDir(fs.Info().Root, func(e disk.DirEntry) error { ... })
//
// The layouts come from "XFS Algorithms & Data Structures" (kernel.org,
// xfs-documentation); the rules for what is valid, and for a replay, are those of
// Linux and xfs_repair, as far as no filesystem in use breaks them. All numbers
// on disk are big endian, but for checksums and for what log items hold.
package xfs
