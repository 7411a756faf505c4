package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/retain"
)

func (a *app) backupsRmCmd() *cobra.Command {
	var force, unreadable bool
	var place string
	c := &cobra.Command{
		Use:   "rm VM@BACKUP… | rm --unreadable ID…",
		Short: "Remove backups",
		Long: `Remove backups. Nothing is removed unless all that are named are found. One that
is pinned, and the last good one of a VM, want --force. One that a VM is being
filled in from (drydock start-from-backup) is never removed.

With --unreadable the files of backups are removed that cannot be read any more, by the
IDs that errors about them name: of what VM they are, and of when, nobody knows. Try
drydock verify --repair before, which brings back what another place has.`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			switch {
			case unreadable:
				return a.backupsRmUnreadable(c.Context(), names, place)
			case place != "":
				return usageError("--copy goes with --unreadable: other backups at a copy are kept as its retain says")
			}
			return a.backupsRm(c.Context(), names, force)
		},
	}
	c.Flags().BoolVar(&unreadable, "unreadable", false, "remove the files of backups that cannot be read")
	c.Flags().StringVar(&place, "copy", "", "with --unreadable: at this copy, and not in the repository")
	c.Flags().BoolVar(&force, "force", false, "also what is pinned, and the last good backup of a VM")
	return c
}

// backupRef names a backup in what is printed.
type backupRef struct {
	ID   string    `json:"id"`
	VM   string    `json:"vm"`
	Time time.Time `json:"time"`
}

func newBackupRef(s *repository.Snapshot) backupRef {
	return backupRef{s.ID.String(), s.Hostname, s.Time}
}

func (r backupRef) String() string {
	return fmt.Sprintf("%s@%.8s of %s", escape.Line(r.VM), r.ID, r.Time.Local().Format(time.DateTime))
}

func (a *app) backupsRm(ctx context.Context, texts []string, force bool) error {
	var names []backupName
	for _, text := range texts {
		n, err := parseBackup(text)
		if err != nil {
			return err
		}
		names = append(names, n)
	}
	return a.withRepository(ctx, func(h *host, repo *repository.Repository) error {
		var gone []*repository.Snapshot
		err := retain.Exclusively(ctx, repo, 0, func(ctx context.Context) error {
			found, err := findAll(ctx, repo, names)
			if err == nil {
				err = h.refuseHeld(found)
			}
			if err == nil && !force {
				err = a.refuseProtected(ctx, repo, found)
			}
			if err != nil {
				return err
			}
			gone, err = retain.Remove(ctx, repo, found)
			return err
		})
		return errors.Join(a.printRefs("removed", gone), err)
	})
}

// backupsRmUnreadable removes files of backups that cannot be read, at a copy if place
// names one.
func (a *app) backupsRmUnreadable(ctx context.Context, texts []string, place string) (err error) {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return err
	}
	defer h.close()
	at := h.config.Repository
	if place != "" {
		c, err := h.copyNamed(place)
		if err != nil {
			return err
		}
		at = c.Repository
	}
	be, err := h.backend(at)
	if err != nil {
		return err
	}
	repo, err := h.openUnindexed(ctx, at, be)
	if err != nil {
		return err
	}
	lock, err := repo.Lock(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock(context.WithoutCancel(ctx))) }()
	found, err := findUnreadable(lock.Context(), repo, texts)
	if err == nil && place == "" {
		err = h.refuseHeldUnreadable(found)
	}
	if err != nil {
		return err
	}
	var gone []string
	for _, id := range found {
		if err = repo.RemoveSnapshot(lock.Context(), id); err != nil {
			break
		}
		gone = append(gone, id.String())
		if !a.json {
			a.printf("removed %s, which could not be read\n", id.Short())
		}
	}
	if a.json {
		err = errors.Join(err, a.printJSON(map[string][]string{"removed": gone}))
	}
	return err
}

// findUnreadable returns the backups that cannot be read and that the beginnings of IDs
// name, each once. One that can be read is an error.
func findUnreadable(ctx context.Context, repo *repository.Repository, texts []string) ([]repository.ID, error) {
	all, err := repo.Snapshots(ctx)
	if all == nil {
		return nil, err
	}
	bad, err := repo.DamagedSnapshots(ctx, all)
	if err != nil {
		return nil, err
	}
	var known []string
	for _, id := range bad {
		known = append(known, id.Short())
	}
	var out []repository.ID
	for _, text := range texts {
		named := func(id repository.ID) bool { return text != "" && strings.HasPrefix(id.String(), text) }
		found := slices.DeleteFunc(slices.Clone(bad), func(id repository.ID) bool { return !named(id) })
		good := slices.IndexFunc(all, func(s *repository.Snapshot) bool { return named(s.ID) })
		switch {
		case len(found) == 1:
			if !slices.Contains(out, found[0]) {
				out = append(out, found[0])
			}
		case len(found) > 1:
			return nil, usageError("%q is the beginning of several IDs; nothing was removed", text)
		case good >= 0:
			return nil, usageError("%s can be read: drydock backups rm %s@%.8s removes it; nothing was removed", newBackupRef(all[good]), escape.Line(all[good].Hostname), all[good].ID)
		case len(bad) == 0:
			return nil, usageError("all backups can be read")
		default:
			return nil, usageError("%q is no backup that cannot be read (there are: %s); nothing was removed", escape.Line(text), strings.Join(known, ", "))
		}
	}
	return out, nil
}

// findAll returns each backup that is named, once.
func findAll(ctx context.Context, repo *repository.Repository, names []backupName) ([]*repository.Snapshot, error) {
	var found []*repository.Snapshot
	seen := make(map[repository.ID]bool)
	for _, n := range names {
		s, err := restore.Find(ctx, repo, n.vm, n.spec)
		if err != nil {
			return nil, err
		}
		if !seen[s.ID] {
			seen[s.ID] = true
			found = append(found, s)
		}
	}
	return found, nil
}

// refuseProtected returns an error if one of the backups should not be removed
// lightly.
func (a *app) refuseProtected(ctx context.Context, repo *repository.Repository, found []*repository.Snapshot) error {
	var vms []retain.VM
	ids := make(map[repository.ID]bool)
	for _, s := range found {
		vms = append(vms, retain.VM{Name: s.Hostname})
		ids[s.ID] = true
	}
	plans, err := retain.Make(ctx, repo, vms, a.now())
	if plans == nil {
		return err
	}
	for _, p := range plans {
		for _, d := range p.Backups {
			if why := d.Protected(); why != "" && ids[d.Snapshot.ID] {
				return fmt.Errorf("%s is kept: %s (--force removes it); nothing was removed", newBackupRef(d.Snapshot), why)
			}
		}
	}
	return nil
}

// printRefs prints what was done to backups.
func (a *app) printRefs(what string, list []*repository.Snapshot) error {
	refs := []backupRef{}
	for _, s := range list {
		refs = append(refs, newBackupRef(s))
		if !a.json {
			a.printf("%s %s\n", what, newBackupRef(s))
		}
	}
	if a.json {
		return a.printJSON(refs)
	}
	if len(list) == 0 {
		a.printf("nothing %s\n", what)
	}
	return nil
}
