// Package btrfs reads btrfs filesystems of untrusted guests, on one device or
// several: every subvolume with every attribute, the content with its holes,
// and, when the guest did not unmount cleanly, the state that its log holds.
//
// It supports the profiles single, DUP, RAID0, RAID1, RAID1C3, RAID1C4 and
// RAID10, the checksums crc32c, xxhash64, sha256 and blake2b, the compressions
// zlib, lzo and zstd, block sizes up to 64 KiB, and the features that mkfs.btrfs
// of btrfs-progs 6.2 can turn on. RAID5 and RAID6, zoned devices, the stripe
// tree, extent tree v2 and seed devices are refused by name.
//
// It promises what package [disk] promises: the content or a [disk.Error], no
// panic, and memory that depends on named limits and never on what a disk
// claims. Every tree block and all content that has a checksum is verified
// first; where one copy is bad, another is taken. A filesystem with a log is
// never read without it: [Open] replays it in memory and writes nothing.
//
//	fs, err := btrfs.Open([]disk.Sparse{volume}, btrfs.Options{})
//	err = fs.ReadDir(fs.Info().Root, func(e disk.DirEntry) error { ... })
//
// The number of an inode is the ID of its subvolume, shifted left by
// [disk.SubvolumeShift], and its number in there. Offsets in errors are logical
// addresses of the filesystem, but for superblocks.
//
// The layouts come from btrfs.readthedocs.io ("On-disk format") and
// include/uapi/linux/btrfs_tree.h of Linux; the rules for what is valid are
// those of Linux, as far as no filesystem in use breaks them.
package btrfs
