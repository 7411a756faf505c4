package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/round"
)

// renewals is how often an object lock is renewed while it lasts: when two rounds in a
// row fail to, nothing has lapsed.
const renewals = 3

// renew renews the object lock of a repository, if it has one and it is time to:
// backups go on using packs that were uploaded long ago.
func (h *host) renew(ctx context.Context, repo *repository.Repository, c config.Repository) error {
	if c.S3 == nil || c.S3.ObjectLock == nil {
		return nil
	}
	last, err := h.db.LastChore(ctx, renewal(c))
	if err != nil {
		return err
	}
	every := time.Duration(c.S3.ObjectLock.Days) * 24 * time.Hour / renewals
	if !round.DueAfter("renewal", h.app.now(), last, every).Due {
		return nil
	}
	if _, err := repo.Renew(ctx); err != nil {
		return fmt.Errorf("the object lock of %s is not renewed (the next round tries again): %w", c.Path, err)
	}
	return h.db.ChoreDone(ctx, renewal(c), h.app.now())
}

// renewLater makes the next renewal one that is due.
func (h *host) renewLater(ctx context.Context, c config.Repository) error {
	if c.S3 == nil || c.S3.ObjectLock == nil {
		return nil
	}
	return h.db.ChoreDone(ctx, renewal(c), time.Unix(0, 0))
}

// renewal is the name of it in the state.
func renewal(c config.Repository) string { return "renew the object lock of " + c.Path }
