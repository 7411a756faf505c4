// Package fat reads FAT12, FAT16 and FAT32 filesystems of untrusted guests, with
// the long names of VFAT: EFI system partitions, installation media, data disks
// that are shared with other systems.
//
// It supports sectors of 512 to 4096 bytes and every cluster size. What FAT does
// not keep is made up as Linux does: the owner is root, directories have mode
// 0755, files 0644 or, with the read-only attribute, 0444; times are in UTC;
// there are no links, holes or extended attributes. Names are UTF-8: long ones as
// they are, with unpaired surrogates in the three bytes that UTF-8 would give
// them; short ones from code page 437. A long name that is damaged, or of more
// than 255 bytes, gives way to the short one. What Windows has encrypted is read as
// it lies there.
//
// It promises what package [disk] promises: the content or a [disk.Error], no
// panic, and memory that depends on named limits and never on what a disk
// claims. FAT has no checksums. What the reader can verify, it does: clusters that
// do not exist, are free or lead in a circle, files larger than their clusters,
// and directories that do not start with themselves or share clusters are errors,
// of that file alone. Content that two files share is read for both.
//
//	fs, err := fat.Open(volume, fat.Options{})
//	err = fs.ReadDir(fs.Info().Root, func(e disk.DirEntry) error { ... })
//
// The layouts come from Microsoft's "FAT File System Specification" (version
// 1.03 of December 2000, and of August 2005); where it leaves room, what Linux
// accepts is accepted.
package fat
