package copy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
)

// RemoveUnreadable removes the snapshot files of r that cannot be read, if r has the
// same backups in others, or they are needless there: known are the first IDs of snapshots,
// by the ones that they have or had. It returns the files that are removed, and unread
// names those that stay: nobody knows what they are of, or r does not have it. It takes an
// exclusive lock where there is one to remove, and waits for it as long as patience says.
func RemoveUnreadable(ctx context.Context, r *repository.Repository, known map[repository.ID]repository.ID, needless map[repository.ID]bool, patience time.Duration) (removed []repository.ID, unread, err error) {
	replaced, unread, err := unreadable(ctx, r, known, needless)
	if err != nil || len(replaced) == 0 {
		return nil, unread, err
	}
	lock, err := r.LockPatiently(ctx, true, patience)
	if err != nil {
		return nil, unread, fmt.Errorf("remove backups that cannot be read: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Unlock(context.WithoutCancel(ctx))) }()
	if replaced, unread, err = unreadable(lock.Context(), r, known, needless); err != nil {
		return nil, unread, err
	}
	for _, id := range replaced {
		if err := r.RemoveSnapshot(lock.Context(), id); err != nil {
			return removed, unread, err
		}
		removed = append(removed, id)
	}
	return removed, unread, nil
}

// unreadable returns the snapshot files that cannot be read and that others replace, or
// nobody needs, and what is wrong with the rest.
func unreadable(ctx context.Context, r *repository.Repository, known map[repository.ID]repository.ID, needless map[repository.ID]bool) (replaced []repository.ID, unread, err error) {
	all, err := r.Snapshots(ctx)
	if all == nil {
		return nil, nil, err
	}
	if err == nil {
		return nil, nil, nil
	}
	bad, err := r.DamagedSnapshots(ctx, all)
	if err != nil {
		return nil, nil, err
	}
	have := make(map[repository.ID]bool, len(all))
	for _, s := range all {
		have[Original(s)] = true
	}
	var left []error
	for _, id := range bad {
		if first, ok := known[id]; ok && (have[first] || needless[first]) {
			replaced = append(replaced, id)
			continue
		}
		_, err := r.LoadSnapshot(ctx, id)
		left = append(left, err)
	}
	return replaced, errors.Join(left...), nil
}
