package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/restore"
	"github.com/drydock-vm/drydock/internal/retain"
)

func (a *app) backupsPinCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "pin VM@BACKUP [NOTE]",
		Short: "Keep a backup, whatever the policy",
		Long: `Keep a backup, whatever the policy, and write a note beside it. The pin is a tag
of the snapshot, which every host and every restic client sees: restic forget
honours it with --keep-tag pinned. The backup gets another ID, as by restic tag.`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, words []string) error {
			return a.retag(c.Context(), words[0], "pinned", func(s *repository.Snapshot) ([]string, error) {
				pinned := *s
				pinned.Tags = backup.WithPin(s, true)
				if len(words) == 1 {
					return pinned.Tags, nil
				}
				return backup.WithNote(&pinned, strings.Join(words[1:], " "))
			})
		},
	}
}

func (a *app) backupsUnpinCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "unpin VM@BACKUP",
		Short: "Leave a backup to the policy again",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, words []string) error {
			return a.retag(c.Context(), words[0], "unpinned", func(s *repository.Snapshot) ([]string, error) {
				return backup.WithPin(s, false), nil
			})
		},
	}
}

func (a *app) backupsNoteCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "note VM@BACKUP [TEXT]",
		Short: "Write a note beside a backup; without a text, remove it",
		Args:  args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, words []string) error {
			return a.retag(c.Context(), words[0], "noted", func(s *repository.Snapshot) ([]string, error) {
				return backup.WithNote(s, strings.Join(words[1:], " "))
			})
		},
	}
}

// retag gives a backup other tags.
func (a *app) retag(ctx context.Context, text, what string, tags func(*repository.Snapshot) ([]string, error)) error {
	name, err := parseBackup(text)
	if err != nil {
		return err
	}
	return a.withRepository(ctx, func(h *host, repo *repository.Repository) error {
		var s *repository.Snapshot
		err := retain.Exclusively(ctx, repo, 0, func(ctx context.Context) error {
			old, err := restore.Find(ctx, repo, name.vm, name.spec)
			if err != nil {
				return err
			}
			if err := h.refuseHeld([]*repository.Snapshot{old}); err != nil { // it would get another ID
				return err
			}
			t, err := tags(old)
			if err != nil {
				return usageError("%s: %w", text, err)
			}
			s, err = repo.SetTags(ctx, old, t)
			return err
		})
		if err != nil {
			return err
		}
		return a.printRefs(what, []*repository.Snapshot{s})
	})
}
