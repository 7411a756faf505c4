package repository

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
	"github.com/drydock-vm/drydock/internal/repository/cut"
	"github.com/drydock-vm/drydock/internal/repository/ecc"
)

// Compression is how hard blobs are compressed.
type Compression string

// The compressions, named as restic names them, though restic's own choice is
// auto. What each costs and saves is in docs/repository.md.
const (
	CompressionOff     Compression = "off" // of data blobs; trees and indexes always are
	CompressionFastest Compression = "fastest"
	CompressionAuto    Compression = "auto"
	CompressionBetter  Compression = "better"
	CompressionMax     Compression = "max"
)

// The sizes that a pack can have, as restic allows them.
const (
	minPackSize     = 4 << 20
	defaultPackSize = 16 << 20
	maxPackOption   = 128 << 20
)

// Options are the choices of one user of a repository. The zero value is good.
type Options struct {
	Compression Compression // "" means CompressionFastest
	// PackSize is the size in bytes at which a pack is closed, 4 MiB to 128
	// MiB; 0 means 16 MiB. About five times as much memory is used, and seven times with
	// more uploads.
	PackSize int
	// Uploads is how many packs wait for the storage while one of each type is filled,
	// 2 to 4; 0 means 2, which is enough where storing one takes no longer than making
	// it. With a large index it is 2 again.
	Uploads int
	// Parity is how much parity packs get, in percent of their size, 1 to 50;
	// 0 means none. See package ecc.
	Parity int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Warn is told what was found and put right; nil means that nobody is.
	Warn func(error)
}

// complete puts in the defaults.
func (o Options) complete() (Options, error) {
	if o.PackSize == 0 {
		o.PackSize = defaultPackSize
	}
	if o.PackSize < minPackSize || o.PackSize > maxPackOption {
		return o, fmt.Errorf("a pack size of %d bytes is not from %d to %d", o.PackSize, minPackSize, maxPackOption)
	}
	o.Uploads = min(max(o.Uploads, fewUploads), manyUploads)
	if o.Parity != 0 && (o.Parity < ecc.MinPercent || o.Parity > ecc.MaxPercent) {
		return o, fmt.Errorf("parity of %d %% is not from %d to %d", o.Parity, ecc.MinPercent, ecc.MaxPercent)
	}
	if o.Compression == "" {
		o.Compression = CompressionFastest
	}
	if _, ok := levels[o.Compression]; !ok {
		return o, fmt.Errorf("unknown compression %q", o.Compression)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	return o, nil
}

// CreateOptions are the choices at the making of a repository.
type CreateOptions struct {
	Options
	// KDF is what opening with the password costs; nil means about half a
	// second on this machine, and 32 MiB. Cheaper is for tests.
	KDF *crypto.Params
}

// Repository is an open repository. All methods are safe for concurrent use.
// There is nothing to close: flush what was saved, and give back the locks.
type Repository struct {
	be    backend.Backend
	cfg   configFile
	codec *codec
	opts  Options
	times lockTimes
	saver saver
	// tables are those of the configuration's polynomial.
	tables func() *cut.Tables

	mu     sync.Mutex // guards what follows
	idx    *index     // nil until LoadIndex
	loaded map[ID]bool
	loadMu sync.Mutex // held during LoadIndex
}

// Create makes an empty repository of format 2 and opens it. A place that holds
// one, or files of one whose config file was lost, is [ErrExist]. A creation that
// died can be done again.
func Create(ctx context.Context, be backend.Backend, password []byte, opts CreateOptions) (*Repository, error) {
	const op = "create repository"
	r, err := create(ctx, be, password, opts)
	if err != nil {
		return nil, &Error{Op: op, Err: err}
	}
	return r, nil
}

func create(ctx context.Context, be backend.Backend, password []byte, opts CreateOptions) (*Repository, error) {
	if len(password) == 0 {
		return nil, errors.New("the password is empty")
	}
	o, err := opts.complete()
	if err != nil {
		return nil, err
	}
	if err := prepare(ctx, be); err != nil {
		return nil, err
	}
	kdf := opts.KDF
	if kdf == nil {
		p, err := crypto.Calibrate()
		if err != nil {
			return nil, err
		}
		kdf = &p
	}
	key, err := crypto.NewKey()
	if err != nil {
		return nil, err
	}
	cfg, err := newConfig()
	if err != nil {
		return nil, err
	}
	if err := saveKey(ctx, be, key, password, *kdf, o.Now()); err != nil {
		return nil, err
	}
	if err := saveConfig(ctx, be, key, cfg); err != nil {
		if errors.Is(err, backend.ErrExist) { // somebody else was faster
			err = fmt.Errorf("%w: %w", ErrExist, err)
		}
		return nil, err
	}
	r, err := newRepository(be, key, cfg, o)
	if err != nil {
		return nil, err
	}
	return r, r.LoadIndex(ctx)
}

// prepare makes sure that no repository is there, and removes the keys that a
// creation which died before its config file left behind: nothing is there that
// they could open.
func prepare(ctx context.Context, be backend.Backend) error {
	for _, t := range []backend.FileType{backend.ConfigFile, backend.SnapshotFile, backend.IndexFile, backend.PackFile} {
		err := be.List(ctx, t, func(info backend.FileInfo) error {
			return fmt.Errorf("%w: there is %s", ErrExist, backend.Handle{Type: t, Name: info.Name})
		})
		if err != nil {
			return err
		}
	}
	var keys []backend.Handle
	err := be.List(ctx, backend.KeyFile, func(info backend.FileInfo) error {
		keys = append(keys, backend.Handle{Type: backend.KeyFile, Name: info.Name})
		return nil
	})
	for _, h := range keys {
		err = errors.Join(err, be.Remove(ctx, h))
	}
	return err
}

// Open opens a repository of format 1 or 2. It can then list snapshots and take
// locks; blobs want [Repository.LoadIndex] first. Opening takes about half a
// second, which is the price of a wrong guess for whoever has the files and not
// the password.
//
// A place without a repository is [ErrNotExist], a password that opens no key
// [ErrWrongKey], a newer format [ErrFormat].
func Open(ctx context.Context, be backend.Backend, password []byte, opts Options) (*Repository, error) {
	const op = "open repository"
	o, err := opts.complete()
	if err != nil {
		return nil, &Error{Op: op, Err: err}
	}
	_, err = be.Stat(ctx, backend.Handle{Type: backend.ConfigFile})
	if errors.Is(err, backend.ErrNotExist) {
		return nil, &Error{Op: op, Err: fmt.Errorf("%w: %w", ErrNotExist, err), Hint: "look at the location, and whether what holds it is mounted; a new one must be created first"}
	}
	if err != nil {
		return nil, &Error{Op: op, Err: err}
	}
	key, err := findKey(ctx, be, password)
	if err != nil {
		return nil, err
	}
	cfg, err := loadConfig(ctx, be, key)
	if err != nil {
		return nil, err
	}
	return newRepository(be, key, cfg, o)
}

func newRepository(be backend.Backend, key *crypto.Key, cfg configFile, opts Options) (*Repository, error) {
	c, err := newCodec(key, cfg.Version, opts.Compression)
	if err != nil {
		return nil, err
	}
	r := &Repository{be: be, cfg: cfg, codec: c, opts: opts, times: defaultLockTimes}
	r.tables = sync.OnceValue(func() *cut.Tables { return cut.NewTables(cfg.Polynomial) })
	r.saver.init()
	return r, nil
}

// ID is the repository's own ID, the same for all who open it, wherever it lies.
func (r *Repository) ID() ID { return r.cfg.ID }

// Version is the format, 1 or 2. Format 1 can only be read: [ErrReadOnly].
func (r *Repository) Version() int { return r.cfg.Version }

// writable returns an error unless blobs and snapshots can be saved.
func (r *Repository) writable() error {
	if r.cfg.Version < formatCompressed {
		return &Error{Op: "write", Err: fmt.Errorf("%w: it has format %d", ErrReadOnly, r.cfg.Version), Hint: "restic migrate upgrade_repo_v2 makes it format 2"}
	}
	return nil
}
