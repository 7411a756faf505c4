// Package wholedisk stores disks as the guest sees them, for backup in image mode.
//
// A disk becomes one file of a snapshot, /disks/NAME.raw, which any restic client
// restores as a raw image. Its content is segments of one size, so that any offset
// is found without a search, and the same segment is stored once however many
// nights have it. Beside it /disks/NAME.json says what a later backup needs to
// know; docs/format/image.md describes both.
//
// Neither read nor stored are zeros that the image format knows of, what the
// guest's filesystems have freed, swap space, and what has not changed since the
// parent snapshot, if a persistent dirty bitmap says so. All that was left out
// reads as zeros.
//
//	objects, report, err := wholedisk.Save(ctx, repo, parent, wholedisk.Source{Disk: "data", Content: d}, opts)
//
// A bitmap only ever makes a run cheaper. It counts if it is the one that was
// started when the parent was taken, and everything that the parent left out and
// that is in use now is read whatever the bitmap says. In any doubt the whole disk
// is read, into the same history, and the report says why.
//
// A disk that was made from a version of an image ([SaveVersion]) has that version in
// the same place. It is read once, in the first backup after it was put on the disk.
//
// What the image format cannot read, because it is damaged, is zeros in the backup
// and in the report.
package wholedisk
