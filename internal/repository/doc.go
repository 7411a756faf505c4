// Package repository reads and writes restic repositories: deduplicated,
// compressed, encrypted blobs in packs, an index of them, and snapshots.
//
// It writes format 2, and reads formats 1 and 2, as restic/restic's
// doc/design.rst and restic itself define them. What it writes, any restic
// client checks, lists, mounts and restores; what restic wrote, it reads, and
// deduplicates against.
//
// A backup opens the repository, takes a shared lock, loads the index, saves
// blobs and trees, flushes, and only then saves the snapshot:
//
//	r, err := repository.Open(ctx, be, password, repository.Options{})
//	lock, err := r.Lock(ctx, false)
//	ctx = lock.Context()
//	err = r.LoadIndex(ctx)
//	id, stored, err := r.SaveBlob(ctx, repository.DataBlob, data)
//	err = r.Flush(ctx)
//	_, err = r.SaveSnapshot(ctx, &repository.Snapshot{Tree: root, …})
//	err = lock.Unlock(ctx)
//
// # What it promises
//
// A writer may die at any moment, and power may go: a pack is durable before an
// index names it, the index before Flush returns, everything before a snapshot
// reaches it. What a dead writer left is packs that no index names, which harm
// nobody and which restic prune removes, and packs that an index names and no
// snapshot reaches, which the next backup uses.
//
// The server is not trusted. Everything but the key files is authenticated
// before it is looked at, every blob's hash is verified before it is returned,
// and every length is bounded before memory is taken for it. A server can
// withhold, delete and bring back what was once stored, and no more.
//
// The host is trusted, and so is whoever has the password. Guests choose what is
// in blobs: they can choose contents whose IDs begin alike, so tables are keyed
// with a secret.
package repository
