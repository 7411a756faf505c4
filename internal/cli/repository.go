package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/drydock-vm/drydock/internal/atomicfile"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
)

// openRepository opens the configured repository, with its index. A place without a
// repository is an error that wraps [repository.ErrNotExist].
func (h *host) openRepository(ctx context.Context) (*repository.Repository, error) {
	be, err := h.backend(h.config.Repository)
	if err != nil {
		return nil, err
	}
	return h.openAt(ctx, h.config.Repository, be)
}

// openAt opens the repository c, whose place is be, with its index.
func (h *host) openAt(ctx context.Context, c config.Repository, be backend.Backend) (*repository.Repository, error) {
	repo, err := h.openUnindexed(ctx, c, be)
	if err != nil {
		return nil, err
	}
	if err := repo.LoadIndex(ctx); err != nil {
		return nil, repositoryError(c, err)
	}
	return repo, nil
}

// openUnindexed opens the repository c, whose place is be, without its index. From here
// on memory is dearer than time: what a million files leave behind in the index alone
// takes 100 MB, and no part of a round is to take twice what it holds.
func (h *host) openUnindexed(ctx context.Context, c config.Repository, be backend.Backend) (*repository.Repository, error) {
	password, err := readPassword(c.PasswordFile)
	if errors.Is(err, fs.ErrNotExist) {
		if there, serr := h.repositoryExists(ctx, c, be); serr == nil && !there {
			return nil, repositoryError(c, fmt.Errorf("%w yet: the first backup makes it, and its key", repository.ErrNotExist))
		}
	}
	if err != nil {
		return nil, err
	}
	repo, err := repository.Open(ctx, be, password, repository.Options{
		Now: h.app.now, Warn: h.app.warn, Parity: c.ECC, Compression: repository.Compression(c.Compression),
		Uploads: uploads(c, be),
	})
	if errors.Is(err, repository.ErrWrongKey) {
		return nil, fmt.Errorf("repository %s: %w (password_file is %s: is it the one of this repository?)", c.Path, err, c.PasswordFile)
	}
	if err != nil {
		return nil, repositoryError(c, err)
	}
	return repo, nil
}

// uploads is how many packs are stored at once: on the other side of a network as many as
// it has connections, since each waits for answers.
func uploads(c config.Repository, be backend.Backend) int {
	if _, near := be.(*local.Backend); near {
		return 0
	}
	return cmp.Or(c.Connections, math.MaxInt)
}

// lockedRepository is the repository under a shared lock, for as long as somebody uses it.
type lockedRepository struct {
	repo  *repository.Repository
	lock  *repository.Lock
	users int
}

// lockRepository opens the repository, with its index, and locks it for reading: a
// prune meanwhile could take away what is being read. What reads uses the context,
// which ends with the lock. Two backups that are looked at together share all of it, since
// the index is most of the memory.
func (a *app) lockRepository(ctx context.Context) (*repository.Repository, context.Context, func(), error) {
	if a.locked == nil {
		l, err := a.lockAnew(ctx)
		if err != nil {
			return nil, nil, nil, err
		}
		a.locked = l
	}
	l := a.locked
	l.users++
	return l.repo, l.lock.Context(), func() {
		if l.users--; l.users > 0 {
			return
		}
		a.locked = nil
		if err := l.lock.Unlock(context.WithoutCancel(ctx)); err != nil {
			fmt.Fprintf(a.stderr, "drydock: %v\n", err)
		}
	}, nil
}

func (a *app) lockAnew(ctx context.Context) (*lockedRepository, error) {
	h, err := a.openHost(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer h.close()
	repo, err := h.openRepository(ctx)
	if err != nil {
		return nil, err
	}
	lock, err := repo.Lock(ctx, false)
	if err != nil {
		return nil, err
	}
	return &lockedRepository{repo: repo, lock: lock}, nil
}

// openOrCreateRepository makes the repository if there is none, and its key if
// there is none either. A repository whose key file is gone is an error: a new
// key would not open it.
func (h *host) openOrCreateRepository(ctx context.Context) (*repository.Repository, error) {
	return h.openOrCreate(ctx, h.config.Repository)
}

// openOrCreate does that for any configured repository.
func (h *host) openOrCreate(ctx context.Context, c config.Repository) (*repository.Repository, error) {
	repo, err := h.openOrCreateUnindexed(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := repo.LoadIndex(ctx); err != nil {
		return nil, repositoryError(c, err)
	}
	return repo, nil
}

// openOrCreateUnindexed is that without the index.
func (h *host) openOrCreateUnindexed(ctx context.Context, c config.Repository) (*repository.Repository, error) {
	be, err := h.backend(c)
	if err != nil {
		return nil, err
	}
	there, err := h.repositoryExists(ctx, c, be)
	if err != nil {
		return nil, err
	}
	if there {
		return h.openSeen(ctx, c, be)
	}
	if err := createPassword(c.PasswordFile); err != nil {
		return nil, err
	}
	password, err := readPassword(c.PasswordFile)
	if err != nil {
		return nil, err
	}
	opts := repository.CreateOptions{Options: repository.Options{Now: h.app.now}}
	if _, err := repository.Create(ctx, be, password, opts); err != nil {
		return nil, repositoryError(c, err)
	}
	return h.openSeen(ctx, c, be)
}

// openSeen opens a repository without its index, and remembers that it is there.
func (h *host) openSeen(ctx context.Context, c config.Repository, be backend.Backend) (*repository.Repository, error) {
	repo, err := h.openUnindexed(ctx, c, be)
	if err != nil {
		return nil, err
	}
	if err := h.db.ChoreDone(ctx, seen(c), h.app.now()); err != nil {
		return nil, err
	}
	return repo, nil
}

// seen is when a repository was there last, for [state.DB.LastChore].
func seen(c config.Repository) string { return "seen " + c.Path }

// repositoryExists reports whether there is a repository at the place be of c. One that
// was there and is gone is an error: where a disk is not mounted, a new one in its place
// would fill the disk of the host, and everything would look well.
func (h *host) repositoryExists(ctx context.Context, c config.Repository, be backend.Backend) (bool, error) {
	_, err := be.Stat(ctx, backend.Handle{Type: backend.ConfigFile})
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, backend.ErrNotExist) {
		return false, repositoryError(c, err)
	}
	last, err := h.db.LastChore(ctx, seen(c))
	if err != nil || last.IsZero() {
		return false, err
	}
	return false, repositoryError(c, fmt.Errorf("it is gone; at %s it was there (is its disk mounted? Only if it is lost, begin a new one: restic -r %s --password-file %s init)",
		last.Local().Format(time.DateTime), c.Path, c.PasswordFile))
}

// repositoryOpens reports whether there is a repository, and opens it with its key if so.
func (h *host) repositoryOpens(ctx context.Context, c config.Repository) (there bool, err error) {
	be, err := h.backend(c)
	if err != nil {
		return false, err
	}
	if there, err = h.repositoryExists(ctx, c, be); err != nil || !there {
		return there, err
	}
	_, err = h.openUnindexed(ctx, c, be)
	return true, err
}

// repositoryError says where the repository is, unless the error does.
func repositoryError(c config.Repository, err error) error {
	var placed *backend.Error
	if errors.As(err, &placed) {
		return fmt.Errorf("repository: %w", err)
	}
	return fmt.Errorf("repository %s: %w", c.Path, err)
}

// maxPassword is the longest password that is read, in bytes.
const maxPassword = 4096

// readPassword reads a password as restic --password-file does: without the
// newline at its end.
func readPassword(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the repository's key: %w (repository.password_file must name the file that the repository was made with)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("the repository's key: %w", err)
	}
	password := bytes.TrimRight(data, "\r\n")
	if len(password) == 0 || len(password) > maxPassword {
		return nil, fmt.Errorf("the repository's key: %s holds %d bytes, and 1 to %d are expected", path, len(password), maxPassword)
	}
	return password, nil
}

// createPassword makes up a password of 256 bits, unless the file is there.
func createPassword(path string) error {
	var secret [32]byte
	rand.Read(secret[:]) // never fails (crypto/rand)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the repository's key: %w", err)
	}
	err := atomicfile.Create(path, []byte(base64.RawStdEncoding.EncodeToString(secret[:])+"\n"), 0o600)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the repository's key: %w", err)
	}
	return nil
}
