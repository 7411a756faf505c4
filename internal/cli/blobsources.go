package cli

import (
	"context"
	"fmt"
	"sync"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/repository"
)

// sourcesOfBlobs are places that are asked for blobs that another one has lost. Each is
// opened when it is first needed, and not locked: a blob that a prune takes away
// meanwhile is one that the place has not.
type sourcesOfBlobs struct {
	h      *host
	places []config.Repository

	mu     sync.Mutex // guards what follows
	opened []*repository.Repository
}

// load returns a blob from the first place that has it.
func (s *sourcesOfBlobs) load(ctx context.Context, b repository.Blob) ([]byte, error) {
	for i := 0; ; i++ {
		repo := s.place(ctx, i)
		if repo == nil {
			return nil, fmt.Errorf("%w: %s is at no other place", repository.ErrBlobNotFound, b.ID.Short())
		}
		data, err := repo.LoadBlob(ctx, b.Type, b.ID, nil)
		if err == nil || ctx.Err() != nil {
			return data, err
		}
	}
}

// place returns the i-th place that could be opened; nil after the last. Those that
// cannot be are told once.
func (s *sourcesOfBlobs) place(ctx context.Context, i int) *repository.Repository {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i >= len(s.opened) && len(s.places) > 0 {
		c := s.places[0]
		s.places = s.places[1:]
		repo, err := s.open(ctx, c)
		if repo != nil {
			s.opened = append(s.opened, repo)
		}
		if err != nil {
			s.h.app.warn(fmt.Errorf("%s cannot give all that is lost: %w", c.Path, err))
		}
	}
	if i >= len(s.opened) {
		return nil
	}
	return s.opened[i]
}

// open opens a place. One of whose index something cannot be read still has the rest.
func (s *sourcesOfBlobs) open(ctx context.Context, c config.Repository) (*repository.Repository, error) {
	be, err := s.h.backend(c)
	if err != nil {
		return nil, err
	}
	repo, err := s.h.openUnindexed(ctx, c, be)
	if err != nil {
		return nil, err
	}
	return repo, repo.LoadIndex(ctx)
}
