package repository

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/drydock-vm/drydock/internal/repository/backend"
)

// maxRenewals is how many files are renewed at once; a backend may do fewer.
const maxRenewals = 16

// Renew has all files of the repository, but for locks, kept from being destroyed for
// as long as ones that are stored now, where the place can do that. It returns how
// many there are. A file that is removed meanwhile is passed over.
func (r *Repository) Renew(ctx context.Context) (files int, err error) {
	renewer, ok := r.be.(backend.Renewer)
	if !ok {
		return 0, nil
	}
	g, work := errgroup.WithContext(ctx)
	g.SetLimit(maxRenewals)
	for _, t := range []backend.FileType{backend.ConfigFile, backend.KeyFile, backend.IndexFile, backend.SnapshotFile, backend.PackFile, backend.ParityFile} {
		err = r.be.List(work, t, func(info backend.FileInfo) error {
			files++
			g.Go(func() error {
				err := renewer.Renew(work, backend.Handle{Type: t, Name: info.Name})
				if errors.Is(err, backend.ErrNotExist) {
					err = nil
				}
				return err
			})
			return work.Err()
		})
		if err != nil {
			break
		}
	}
	if gerr := g.Wait(); gerr != nil {
		err = gerr // that of List follows from it
	}
	if err != nil {
		return files, &Error{Op: "renew", Err: err}
	}
	return files, nil
}
