package retain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/repository"
)

// Wanted returns those of more, snapshots that the repository does not have yet, which
// the policies would keep if it had all of them, in their order. Of a VM that is not
// among vms all are. So a repository to which backups are copied gets none that it
// would remove again.
func Wanted(ctx context.Context, repo *repository.Repository, more []*repository.Snapshot, vms []VM, now time.Time) ([]*repository.Snapshot, error) {
	all, err := repo.Snapshots(ctx) // one that cannot be read is kept, and keeps no place of another
	if all == nil {
		return nil, fmt.Errorf("which backups would be kept: %w", err)
	}
	// Of what a damaged index does not say no backup is good, and takes no place either.
	if err := repo.LoadIndex(ctx); err != nil && !repository.IsDamage(err) {
		return nil, errors.Join(context.Cause(ctx), err)
	}
	isNew := make(map[*repository.Snapshot]bool)
	for _, s := range more {
		isNew[s] = true
	}
	good := func(s *repository.Snapshot) bool { return isNew[s] || repo.HasBlob(repository.TreeBlob, s.Tree) }
	byVM := make(map[string][]*repository.Snapshot)
	for _, list := range [][]*repository.Snapshot{all, more} {
		for _, s := range list {
			if backup.IsOurs(s) {
				byVM[s.Hostname] = append(byVM[s.Hostname], s)
			}
		}
	}
	goes := make(map[*repository.Snapshot]bool)
	for _, vm := range vms {
		for _, s := range decide(vm, byVM[vm.Name], good, now).Removals() {
			goes[s] = true
		}
	}
	var out []*repository.Snapshot
	for _, s := range more {
		if !goes[s] {
			out = append(out, s)
		}
	}
	return out, nil
}
