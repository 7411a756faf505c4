package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/copy"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/retain"
	"github.com/drydock-vm/drydock/internal/round"
)

func (a *app) backupsCopyCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "copy [VM…]",
		Short: "Bring the backups to the other repositories",
		Long: `Bring all backups, or those of the VMs that are named, to each repository below
copies: in the configuration, as each round does. What is there already is passed
over, also if restic copy brought it, and so is what the policies of the place would
remove again. Every blob is verified on the way; a damaged backup is an error and not
copied, and does not keep the others. A place that cannot be reached does not keep the other
places.`,
		RunE: func(c *cobra.Command, names []string) error { return a.backupsCopy(c.Context(), names) },
	}
}

// copyLine is what was copied to one place.
type copyLine struct {
	Path    string `json:"path"`
	Copied  int    `json:"copied"`  // backups
	Present int    `json:"present"` // backups that were there already
	// Unwanted are backups that the policies of the place do not keep.
	Unwanted int   `json:"unwanted,omitempty"`
	Blobs    int64 `json:"blobs"`
	Stored   int64 `json:"stored"` // bytes that were added there
	// Mended is what the place had lost, and has again.
	Mended string `json:"mended,omitempty"`
	Error  string `json:"error,omitempty"`
}

func (a *app) backupsCopy(ctx context.Context, names []string) error {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	if len(h.config.Copies) == 0 {
		return usageError("there is no place to copy to in %s (name one below copies:)", a.configPath)
	}
	from, err := h.openRepository(ctx)
	if err != nil {
		return err
	}
	if err := h.known(ctx, from, names); err != nil {
		return err
	}
	lines := []copyLine{}
	var failed []error
	for _, c := range h.config.Copies {
		l := copyLine{Path: c.Path}
		_, rep, err := h.copyTo(ctx, from, c, names)
		if rep != nil {
			l.Copied, l.Present, l.Unwanted, l.Blobs, l.Stored = rep.Copied, rep.Present, rep.unwanted, rep.Blobs, rep.Stored
			l.Mended = mendedText(rep.mended)
		}
		if err != nil {
			l.Error = err.Error()
			failed = append(failed, fmt.Errorf("copy to %s: %w", c.Path, err))
		}
		lines = append(lines, l)
	}
	if a.json {
		err = a.printJSON(lines)
	} else {
		for _, l := range lines {
			a.printf("%s: %d copied, %d there already; %d blobs, %s stored\n", l.Path, l.Copied, l.Present, l.Blobs, round.Bytes(l.Stored))
			if l.Mended != "" {
				a.printf("! %s: %s\n", l.Path, l.Mended)
			}
		}
	}
	return errors.Join(append(failed, err)...)
}

// copyTo copies to one place what its policies keep. What the place has lost, as far as
// that can be seen from here, comes first: what else is copied may hang on it.
func (h *host) copyTo(ctx context.Context, from *repository.Repository, c config.Copy, names []string) (to *repository.Repository, rep *copied, err error) {
	if to, err = h.openOrCreateUnindexed(ctx, c.Repository); err != nil {
		return nil, nil, err
	}
	mended, merr := copy.Mend(ctx, from, to, lockPatience)
	if merr != nil && (ctx.Err() != nil || !repository.IsDamage(merr)) {
		return nil, nil, repositoryError(c.Repository, merr)
	}
	rep, err = h.copyMissing(ctx, from, to, c, names)
	if rep == nil {
		return nil, nil, errors.Join(merr, err)
	}
	rep.mended = mended
	return to, rep, errors.Join(merr, err)
}

// copyMissing copies what a place lacks, under locks at both.
func (h *host) copyMissing(ctx context.Context, from, to *repository.Repository, c config.Copy, names []string) (rep *copied, err error) {
	for _, r := range []*repository.Repository{from, to} {
		lock, lerr := r.Lock(ctx, false)
		if lerr != nil {
			return nil, lerr
		}
		defer func() {
			if uerr := lock.Unlock(context.WithoutCancel(ctx)); err == nil {
				err = uerr
			}
		}()
		ctx = lock.Context()
	}
	all, unread := from.Snapshots(ctx) // what cannot be read does not keep the others
	if all == nil || ctx.Err() != nil {
		return nil, errors.Join(context.Cause(ctx), unread)
	}
	ours := slices.DeleteFunc(all, func(s *repository.Snapshot) bool {
		return !slices.Contains(s.Tags, backup.TagProgram) || len(names) > 0 && !slices.Contains(names, s.Hostname)
	})
	missing, unreadThere := copy.Missing(ctx, to, ours)
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
	return &copied{Report: done, unwanted: len(missing) - len(wanted)}, errors.Join(unread, unreadThere, err)
}

// known refuses names of VMs that are neither configured nor in a repository.
func (h *host) known(ctx context.Context, repo *repository.Repository, names []string) error {
	for _, name := range names {
		if _, ok := h.config.VMs[name]; ok {
			continue
		}
		switch list, err := backup.Find(ctx, repo, name); {
		case len(list) > 0:
		case err != nil:
			return err
		default:
			return usageError("there is no VM %q in %s, and no backup of one", name, h.app.configPath)
		}
	}
	return nil
}

// copied is what was copied, how many backups are not wanted there, and what the place
// had lost.
type copied struct {
	*copy.Report
	unwanted int
	mended   *copy.Mended
}

// mendedText says what a place had lost, or "".
func mendedText(m *copy.Mended) string {
	if !m.Any() {
		return ""
	}
	return fmt.Sprintf("%d packs were gone and %d index files could not be read; what they held is there again (blobs copied: %d)", len(m.Packs), len(m.Indexes), m.Blobs)
}

// copyPolicies returns what is kept of the VMs' backups at a place.
func (h *host) copyPolicies(c config.Copy) []retain.VM {
	vms := h.policies(h.vms)
	for i := range vms {
		vms[i].Held = false // no VM hangs on a copy
		if c.Retain != nil {
			vms[i].Policy = policy(c.Retain)
		}
	}
	return vms
}
