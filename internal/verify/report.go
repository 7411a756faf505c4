package verify

import (
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
)

const (
	// maxDamage is how many damaged files of the repository a report names. All
	// are counted.
	maxDamage = 100
	// maxFiles is how many damaged files of a backup a report names. Folders of
	// equal content are stored once, so one lost blob can be more files than
	// anybody can count.
	maxFiles = 1000
)

// Report is what a run found.
type Report struct {
	Mode     Mode
	Duration time.Duration

	// Backups are the snapshots that were looked at, oldest first.
	Backups []*Backup
	// Damage is what is wrong with files of the repository, the first 100 of
	// them; DamageTotal counts all.
	Damage      []error
	DamageTotal int

	Folders   int   // different ones
	Packs     int   // whose header was compared with the index
	PacksRead int   // read as a whole
	Bytes     int64 // of the packs
	BytesRead int64
	// Spare counts the packs that no index names: a writer that died left them,
	// and restic prune removes them.
	Spare int
	// Repaired are the packs that were damaged, and were made again from their
	// parity. What they hold counts as good.
	Repaired []repository.ID
	// Replaced are the packs that were damaged or gone, and are not needed any more:
	// what they held is stored anew, Rescued blobs of it.
	Replaced []repository.ID
	Rescued  int
	// Reindexed are index files that could not be read, and were made again.
	Reindexed []repository.ID
	// Indexed are packs that no index named, as where an index file is gone, and that one
	// names again.
	Indexed []repository.ID
}

// Backup is what a run found in one snapshot.
type Backup struct {
	ID   repository.ID
	VM   string // the snapshot's host name; hostile, as all text of a repository
	Time time.Time

	// Damaged are the files and folders that do not come back, or not in whole,
	// the first 1000 of them; More says that there are others.
	Damaged []File
	More    bool
}

// File is a file, or a folder with all that is below it, that is damaged.
type File struct {
	Path []byte // in the guest; hostile bytes
	Err  error
}

// Good reports whether nothing is lost of the backup.
func (b *Backup) Good() bool { return len(b.Damaged) == 0 }

// Good reports whether nothing at all is damaged.
func (r *Report) Good() bool {
	for _, b := range r.Backups {
		if !b.Good() {
			return false
		}
	}
	return r.DamageTotal == 0
}

func (r *Report) damage(err error) {
	r.DamageTotal++
	if len(r.Damage) < maxDamage {
		r.Damage = append(r.Damage, err)
	}
}
