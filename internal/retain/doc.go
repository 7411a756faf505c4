// Package retain decides which backups go, removes them, and has the real restic
// give back the space that they took.
//
// What a [Policy] keeps is what restic forget keeps with the same counts, grouped
// as it groups by default: by host, which is the VM, and by paths. Three things
// are kept whatever the policy says: a backup that is pinned (restic's --keep-tag
// with [backup.TagPinned]), one that is from the future, which only a clock that went
// backwards can have made, and the last good one, which is the newest whose tree
// the repository has. An empty policy keeps all, and so does a VM whose disks lie on a
// backup.
//
// [Make] plans and changes nothing. [Apply] makes the plan anew under the
// exclusive lock that removal wants, and carries it out. What it removed is
// removed when its process dies, and the next Apply goes on: each removal is
// that of one file, and the plan never hangs on one that was half done.
//
// Space is given back by [Prune], which runs restic prune: the one operation that
// can destroy data stays with the program that people trust with it.
package retain
