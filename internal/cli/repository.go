package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/drydock-vm/drydock/internal/atomicfile"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
)

// openRepository opens the configured repository, with its index. A folder
// without a repository is an error that wraps [fs.ErrNotExist].
func (h *host) openRepository(ctx context.Context) (*repository.Repository, error) {
	repo, err := h.openUnindexed(ctx)
	if err != nil {
		return nil, err
	}
	if err := repo.LoadIndex(ctx); err != nil {
		return nil, fmt.Errorf("repository %s: %w", h.config.Repository.Path, err)
	}
	return repo, nil
}

// openUnindexed opens the configured repository, without its index.
func (h *host) openUnindexed(ctx context.Context) (*repository.Repository, error) {
	c := h.config.Repository
	password, err := readPassword(c.PasswordFile)
	if err != nil {
		return nil, err
	}
	repo, err := repository.Open(ctx, local.New(c.Path), password, repository.Options{Now: h.app.now})
	if errors.Is(err, repository.ErrWrongKey) {
		return nil, fmt.Errorf("repository %s: %w (password_file is %s: is it the one of this repository?)", c.Path, err, c.PasswordFile)
	}
	if err != nil {
		return nil, fmt.Errorf("repository %s: %w", c.Path, err)
	}
	return repo, nil
}

// openOrCreateRepository makes the repository if there is none, and its key if
// there is none either. A repository whose key file is gone is an error: a new
// key would not open it.
func (h *host) openOrCreateRepository(ctx context.Context) (*repository.Repository, error) {
	c := h.config.Repository
	if _, err := os.Stat(filepath.Join(c.Path, "config")); !errors.Is(err, fs.ErrNotExist) {
		return h.openRepository(ctx)
	}
	if err := createPassword(c.PasswordFile); err != nil {
		return nil, err
	}
	password, err := readPassword(c.PasswordFile)
	if err != nil {
		return nil, err
	}
	opts := repository.CreateOptions{Options: repository.Options{Now: h.app.now}}
	if _, err := repository.Create(ctx, local.New(c.Path), password, opts); err != nil {
		return nil, fmt.Errorf("make the repository %s: %w", c.Path, err)
	}
	return h.openRepository(ctx)
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
