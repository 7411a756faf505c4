// Package diff compares two trees: of two backups, or of a backup and a disk, or
// of two disks.
//
//	summary, err := diff.Run(ctx, diff.Side{FS: before}, diff.Side{FS: after}, diff.Options{
//		Changed: func(c *diff.Change) error { … },
//	})
//
// Changes come in the order of their paths, as they are found. What is told of a
// file is what a backup keeps: type, content, mode, owner, time of modification,
// extended attributes, symlink target, device number and number of hardlinks.
//
// # What it promises
//
// Folders and files of one repository whose identities are equal are equal, and
// are passed over without a look at what is in them. Where one side is a disk,
// content is taken to be the same if size and time of modification are; that only
// the time of change differs is told. With [Options.Content] it is read instead.
//
// Both trees were chosen by hostile guests. Memory is bounded by named limits,
// folders that are in themselves end, and what is damaged costs that file, and is
// reported.
package diff
