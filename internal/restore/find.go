package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/repository"
)

// Latest is the spec of the newest snapshot.
const Latest = "latest"

// maxListed is how many snapshots an error lists.
const maxListed = 10

// The reasons why [Find] finds nothing, found with [errors.Is].
var (
	// ErrNoBackup is of a VM that has no such backup.
	ErrNoBackup = errors.New("no such backup")
	// ErrAmbiguous is of the beginning of an ID that several backups have.
	ErrAmbiguous = errors.New("several backups have an ID that begins like this")
	// ErrSpec is of a text that is none of the forms of a spec.
	ErrSpec = errors.New("not a backup: use latest, an ID, a date such as 2026-11-24, or a time such as 2026-11-24T03:00:00+01:00")
)

// Find returns the snapshot of a VM that spec names: [Latest], the ID or the
// beginning of it, a date (the newest of that day, in local time), or a time as in
// RFC 3339 (the newest that is not younger). What cannot be found is
// [ErrNoBackup], [ErrAmbiguous] or [ErrSpec], and the text says what there is.
//
// When snapshots cannot be read, which one is the newest is not known: only an ID
// finds one then.
func Find(ctx context.Context, repo *repository.Repository, vm, spec string) (*repository.Snapshot, error) {
	all, unread := backup.Find(ctx, repo, vm)
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	s, byID, err := choose(all, spec)
	switch {
	case err != nil:
		return nil, fmt.Errorf("backup %.80q of %s: %w", spec, vm, errors.Join(err, unread))
	case unread != nil && !byID:
		return nil, fmt.Errorf("backup %q of %s: a newer one may be among those that cannot be read (name one by its ID: %s): %w", spec, vm, list(all), unread)
	}
	return s, nil
}

// choose picks one of a VM's snapshots, which are sorted, the oldest first. byID
// says that no other can be meant.
func choose(all []*repository.Snapshot, spec string) (s *repository.Snapshot, byID bool, err error) {
	if spec == Latest {
		s, err = newest(all, func(time.Time) bool { return true })
		return s, false, err
	}
	if t, perr := time.ParseInLocation(time.DateOnly, spec, time.Local); perr == nil {
		s, err = newest(all, func(at time.Time) bool { return !at.Before(t) && at.Before(t.AddDate(0, 0, 1)) })
		return s, false, err
	}
	if t, perr := time.Parse(time.RFC3339, spec); perr == nil {
		s, err = newest(all, func(at time.Time) bool { return !at.After(t) })
		return s, false, err
	}
	if spec == "" || strings.Trim(spec, "0123456789abcdef") != "" {
		return nil, false, ErrSpec
	}
	found := slices.DeleteFunc(slices.Clone(all), func(s *repository.Snapshot) bool {
		return !strings.HasPrefix(s.ID.String(), spec)
	})
	switch len(found) {
	case 0:
		return nil, true, none(all)
	case 1:
		return found[0], true, nil
	}
	return nil, true, fmt.Errorf("%w: %s", ErrAmbiguous, list(found))
}

func newest(all []*repository.Snapshot, fits func(time.Time) bool) (*repository.Snapshot, error) {
	for _, s := range slices.Backward(all) {
		if fits(s.Time) {
			return s, nil
		}
	}
	return nil, none(all)
}

func none(all []*repository.Snapshot) error {
	if len(all) == 0 {
		return fmt.Errorf("%w: this VM has none (drydock backups list shows those of all VMs)", ErrNoBackup)
	}
	return fmt.Errorf("%w: there is %s", ErrNoBackup, list(all))
}

// list names snapshots, the newest first.
func list(all []*repository.Snapshot) string {
	var names []string
	for _, s := range slices.Backward(all) {
		if len(names) == maxListed {
			names = append(names, fmt.Sprintf("and %d older", len(all)-maxListed))
			break
		}
		names = append(names, fmt.Sprintf("%s of %s", s.ID.Short(), s.Time.Local().Format(time.DateTime)))
	}
	return escape.Line(strings.Join(names, ", "))
}
