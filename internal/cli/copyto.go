package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/copy"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/retain"
	"github.com/drydock-vm/drydock/internal/round"
)

// copied is what was copied, and what the place had lost.
type copied struct {
	*copy.Report
	needless map[repository.ID]bool // first IDs of the backups that are not wanted there
	mended   *copy.Mended
	replaced []repository.ID // backups that could not be read, and are there in others or needless

	there map[repository.ID]repository.ID // first IDs of the backups that were there, by theirs
	// What cannot be read of the backups in the repository, and of those at the place.
	unreadHere, unreadThere error
}

// report is what a round says of it.
func (c *copied) report() *round.CopyReport {
	return &round.CopyReport{Copied: c.Copied, Present: c.Present, Unwanted: len(c.needless), Blobs: c.Blobs, Stored: c.Stored, Mended: c.mendedText()}
}

// mendedText says what a place had lost, or "".
func (c *copied) mendedText() string {
	var parts []string
	for _, part := range []struct {
		n    int
		what string
	}{
		{len(c.mended.Packs), "packs were gone or cut off"}, {len(c.mended.Indexes), "index files could not be read"},
		{len(c.replaced), "backups could not be read"}, {c.mended.Lost, "backups were in no index file"},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.what))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return strings.Join(parts, ", ") + "; all of it is there again"
}

// copyTo copies to one place what its policies keep. What the place has lost, as far as
// that can be seen from here, comes first: what else is copied may hang on it. That
// backups cannot be read is in the report alone.
func (h *host) copyTo(ctx context.Context, from *repository.Repository, c config.Copy, names []string) (to *repository.Repository, rep *copied, err error) {
	if to, err = h.openOrCreateUnindexed(ctx, c.Repository); err != nil {
		return nil, nil, err
	}
	mended, merr := copy.Mend(ctx, from, to, lockPatience)
	if mended == nil || ctx.Err() != nil {
		return nil, nil, repositoryError(c.Repository, merr)
	}
	rep, err = h.copyMissing(ctx, from, to, c, names)
	if rep == nil {
		return nil, nil, errors.Join(merr, err)
	}
	rep.mended = mended
	return to, rep, errors.Join(merr, err, h.tidyBackups(ctx, to, c.Path, rep))
}

// copyMissing copies what a place lacks, under locks at both.
func (h *host) copyMissing(ctx context.Context, from, to *repository.Repository, c config.Copy, names []string) (rep *copied, err error) {
	ctx, unlock, err := lockBoth(ctx, from, to)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	all, unread := from.Snapshots(ctx) // what cannot be read does not keep the others
	if all == nil || ctx.Err() != nil {
		return nil, errors.Join(context.Cause(ctx), unread)
	}
	// Other hosts may have backed up, and pruned, since from was opened.
	if err := from.LoadIndex(ctx); err != nil && !repository.IsDamage(err) {
		return nil, err
	}
	if err := h.rememberBackups(ctx, "", copy.Originals(all), unread != nil); err != nil {
		return nil, err
	}
	ours := slices.DeleteFunc(all, func(s *repository.Snapshot) bool {
		return !slices.Contains(s.Tags, backup.TagProgram) || len(names) > 0 && !slices.Contains(names, s.Hostname)
	})
	missing, there, unreadThere := copy.Missing(ctx, to, ours)
	if missing == nil {
		return nil, unreadThere
	}
	wanted, err := retain.Wanted(ctx, to, missing, h.copyPolicies(c), h.app.now())
	if err != nil {
		return nil, err
	}
	done, err := copy.Run(ctx, from, to, wanted)
	if done == nil {
		return nil, err
	}
	done.Present += len(ours) - len(missing)
	maps.Copy(there, done.Originals)
	needless := make(map[repository.ID]bool, len(missing))
	for _, s := range missing {
		needless[copy.Original(s)] = true
	}
	for _, s := range wanted {
		delete(needless, copy.Original(s))
	}
	return &copied{Report: done, needless: needless, there: there, unreadHere: unread, unreadThere: unreadThere}, err
}

// lockBoth locks two repositories, not exclusively. What is done under the locks takes
// the context.
func lockBoth(ctx context.Context, a, b *repository.Repository) (locked context.Context, unlock func() error, err error) {
	first, err := a.Lock(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	second, err := b.Lock(first.Context(), false)
	if err != nil {
		return nil, nil, errors.Join(err, first.Unlock(context.WithoutCancel(ctx)))
	}
	return second.Context(), func() error {
		ctx := context.WithoutCancel(ctx)
		return errors.Join(second.Unlock(ctx), first.Unlock(ctx))
	}, nil
}

// tidyBackups removes backups of a place that cannot be read, if they are there again or
// its policies do not keep them, and remembers those that are there.
func (h *host) tidyBackups(ctx context.Context, to *repository.Repository, place string, rep *copied) error {
	var failed error
	if rep.unreadThere != nil {
		known, err := h.knownBackups(ctx, place)
		if err != nil {
			return err
		}
		maps.Copy(known, rep.there)
		rep.replaced, rep.unreadThere, failed = copy.RemoveUnreadable(ctx, to, known, rep.needless, lockPatience)
	}
	return errors.Join(failed, h.rememberBackups(ctx, place, rep.there, rep.unreadThere != nil || failed != nil))
}

// knownBackups are the first IDs of the backups that were last known to be at a place, by
// the ones that they have there. It is called as the state calls it.
func (h *host) knownBackups(ctx context.Context, place string) (map[repository.ID]repository.ID, error) {
	kept, err := h.db.BackupsAt(ctx, place)
	if err != nil {
		return nil, err
	}
	known := make(map[repository.ID]repository.ID, len(kept))
	for id, first := range kept {
		a, aerr := repository.ParseID(id)
		b, berr := repository.ParseID(first)
		if err := errors.Join(aerr, berr); err != nil {
			return nil, fmt.Errorf("which backups were at %q: %w", place, err)
		}
		known[a] = b
	}
	return known, nil
}

// rememberBackups keeps for later which backups are at a place: what a file that cannot
// be read was, nothing else tells. As long as there are some, nothing is forgotten.
func (h *host) rememberBackups(ctx context.Context, place string, there map[repository.ID]repository.ID, unreadable bool) error {
	out := make(map[string]string, len(there))
	if unreadable {
		known, err := h.db.BackupsAt(ctx, place)
		if err != nil {
			return err
		}
		out = known
	}
	for id, first := range there {
		out[id.String()] = first.String()
	}
	return h.db.SetBackupsAt(ctx, place, out)
}
