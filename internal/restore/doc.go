// Package restore brings backups back: it finds a snapshot, opens its tree as a
// filesystem, and writes files and folders of any filesystem to a folder.
//
//	s, err := restore.Find(ctx, repo, "web", "latest")
//	tree, err := restore.OpenTree(ctx, repo, s)
//	report, err := restore.Run(ctx, tree, "/srv/restored", restore.Options{
//		Paths: [][]byte{[]byte("/var/lib/app")},
//	})
//
// # What comes back
//
// Content, type, permission bits, times of modification to the nanosecond,
// symlinks, hardlinks, FIFOs, sockets, extended attributes and ACLs, and holes where
// they were, as far as the target's blocks allow. In what restic wrote nobody knows
// where they were, and long runs of zeros become holes. Owners, and attributes in
// security.* and trusted.*, come back when root restores. What would give somebody a
// privilege on this host, setuid and setgid bits, file capabilities and device nodes,
// and chattr(1)'s flags come back only when they are asked for, and are counted as
// left out otherwise. Times of access do not come back.
//
// # What it promises
//
// Names, links and sizes were chosen by a hostile guest. Nothing is written,
// linked, or given another owner outside the target folder, and nothing through a
// symlink inside of it. A file has its real name only when it is whole. A file
// that is damaged in the source costs that file, and is reported. When Run
// returns without an error, everything that it reports is on stable storage.
package restore
