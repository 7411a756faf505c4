package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/restic/chunker"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
	"github.com/drydock-vm/drydock/internal/repository/cut"
)

// The formats.
const (
	formatPlain      = 1 // no compression; read only
	formatCompressed = 2
)

// configFile is the content of the config file, which is encrypted and never
// compressed.
type configFile struct {
	Version    int         `json:"version"`
	ID         ID          `json:"id"`
	Polynomial chunker.Pol `json:"chunker_polynomial"`
}

// maxConfigSize bounds the config file. Restic's has 155 bytes.
const maxConfigSize = 64 << 10

// newConfig returns the config of a new repository.
func newConfig() (configFile, error) {
	pol, err := chunker.RandomPolynomial()
	if err != nil {
		return configFile{}, fmt.Errorf("choose chunker polynomial: %w", err)
	}
	// The ID is 32 random bytes, which a salt is, hashed or not.
	return configFile{Version: formatCompressed, ID: Hash(crypto.NewSalt()), Polynomial: pol}, nil
}

// saveConfig makes the place a repository: it is the last act of a creation.
func saveConfig(ctx context.Context, be backend.Backend, key *crypto.Key, cfg configFile) error {
	plain, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	return be.Save(ctx, backend.Handle{Type: backend.ConfigFile}, key.Seal(nil, plain))
}

// loadConfig reads and checks the config file.
func loadConfig(ctx context.Context, be backend.Backend, key *crypto.Key) (configFile, error) {
	const op = "open repository"
	h := backend.Handle{Type: backend.ConfigFile}
	sealed, err := readFile(ctx, be, op, h, maxConfigSize)
	if err != nil {
		return configFile{}, err
	}
	plain, err := key.Open(sealed)
	if err != nil {
		return configFile{}, damaged(op, h, "%w", err)
	}
	cfg, err := decodeConfig(plain)
	if errors.Is(err, ErrFormat) {
		return configFile{}, &Error{Op: op, File: h.String(), Err: err, Hint: "this drydock knows versions 1 and 2; a newer drydock may know this one"}
	}
	if err != nil {
		return configFile{}, damaged(op, h, "%w", err)
	}
	return cfg, nil
}

// decodeConfig reads the plaintext of a config file, and checks it.
func decodeConfig(plain []byte) (configFile, error) {
	var cfg configFile
	if err := json.Unmarshal(plain, &cfg); err != nil {
		return configFile{}, err
	}
	if cfg.Version < formatPlain || cfg.Version > formatCompressed {
		return configFile{}, fmt.Errorf("%w: version %d", ErrFormat, cfg.Version)
	}
	return cfg, checkPolynomial(cfg.Polynomial)
}

// checkPolynomial refuses what would make a chunker misbehave.
func checkPolynomial(p chunker.Pol) error {
	if p.Deg() != cut.Degree || !p.Irreducible() {
		return errors.New("the chunker polynomial is not an irreducible one of degree 53")
	}
	return nil
}
