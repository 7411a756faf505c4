// Package state keeps what drydock must remember across its own death: the
// journal of the round that is under way, the history of those that ended, the
// snapshots that still have to be dropped, the builds that were started, which backups
// were proven, and which of them were where.
// It is one SQLite file; every write is on the disk when the call returns.
//
// The package promises that what [DB.Record] returned nil for is there after a
// kill -9 or a power cut, in order, and that a database written by a newer
// drydock is refused by name and not changed.
package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// schemaVersion is the PRAGMA user_version of the tables below. A change adds
// a step to migrations and so raises it.
var schemaVersion = len(migrations)

// migrations brings an older database up to date, one transaction each.
var migrations = []string{
	`
CREATE TABLE rounds (
	id         TEXT PRIMARY KEY,
	started_at INTEGER NOT NULL,          -- nanoseconds since 1970, UTC
	ended_at   INTEGER,                   -- NULL: under way, or cut off
	outcome    TEXT NOT NULL DEFAULT '',  -- done, warnings, failed, interrupted
	report     TEXT NOT NULL DEFAULT ''   -- JSON, as drydock run --json prints it
) STRICT;
CREATE TABLE journal (
	seq   INTEGER PRIMARY KEY AUTOINCREMENT,
	round TEXT NOT NULL REFERENCES rounds(id),
	vm    TEXT NOT NULL,
	step  TEXT NOT NULL,
	phase TEXT NOT NULL,                  -- begin, done, failed
	data  TEXT NOT NULL DEFAULT '',       -- JSON, of the step
	at    INTEGER NOT NULL
) STRICT;
CREATE INDEX journal_round ON journal(round);
CREATE TABLE vm_rounds (
	round  TEXT NOT NULL REFERENCES rounds(id),
	vm     TEXT NOT NULL,
	report TEXT NOT NULL,                 -- JSON
	PRIMARY KEY (round, vm)
) STRICT;
CREATE INDEX vm_rounds_vm ON vm_rounds(vm);
CREATE TABLE snapshots (
	round TEXT NOT NULL,
	vm    TEXT NOT NULL,
	disk  TEXT NOT NULL,
	data  TEXT NOT NULL,                  -- JSON of the snapshot
	PRIMARY KEY (round, vm, disk)
) STRICT;
CREATE TABLE builds (
	id           TEXT PRIMARY KEY,
	vm           TEXT NOT NULL,
	spec_digest  TEXT NOT NULL,
	started_at   INTEGER NOT NULL,
	harvested_at INTEGER                  -- NULL: not finished, or not yet seen
) STRICT;
`,
	`
CREATE TABLE chores (
	name    TEXT PRIMARY KEY,             -- prune
	done_at INTEGER NOT NULL
) STRICT;
CREATE TABLE proofs (
	seq    INTEGER PRIMARY KEY AUTOINCREMENT,
	vm     TEXT NOT NULL,                 -- empty: all backups of the repository
	mode   TEXT NOT NULL,                 -- quick, sample, full, boot
	at     INTEGER NOT NULL,
	report TEXT NOT NULL                  -- JSON
) STRICT;
CREATE INDEX proofs_vm ON proofs(vm);
`,
	`
ALTER TABLE proofs ADD COLUMN place TEXT NOT NULL DEFAULT ''; -- empty: the repository, and not a copy
DROP INDEX proofs_vm;
CREATE INDEX proofs_place_vm ON proofs(place, vm);
`,
	`
CREATE TABLE backups_at (
	place    TEXT NOT NULL,               -- as in proofs
	id       TEXT NOT NULL,               -- of the backup there
	original TEXT NOT NULL,               -- the ID that it had first
	PRIMARY KEY (place, id)
) STRICT;
`,
}

// ErrNewer says that the database was written by a newer drydock.
var ErrNewer = errors.New("the state was written by a newer drydock")

// DB is the open state. It is safe for concurrent use.
type DB struct{ sql *sql.DB }

// Open opens or creates the database at path, with mode 0600.
func Open(ctx context.Context, path string) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	// Created here, since SQLite would create it readable to all.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	f.Close()
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		return nil, fmt.Errorf("open state %s: %w", path, err)
	}
	db.SetMaxOpenConns(1) // one writer; every caller is short
	d := &DB{sql: db}
	if err := d.migrate(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("open state %s: %w", path, err)
	}
	return d, nil
}

// dsn asks for full synchronisation: a journal entry must survive a power cut,
// since recovery decides by it which root disk a VM starts from.
func dsn(path string) string {
	q := url.Values{"_pragma": {
		"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "busy_timeout(10000)",
	}, "_txlock": {"immediate"}}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
}

// Close closes the database.
func (d *DB) Close() error { return d.sql.Close() }

func (d *DB) migrate(ctx context.Context) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		var have int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
			return err
		}
		if have > schemaVersion {
			return fmt.Errorf("%w: schema %d, this drydock knows up to %d: install the newer one again", ErrNewer, have, schemaVersion)
		}
		for _, m := range migrations[have:] {
			if _, err := tx.ExecContext(ctx, m); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion))
		return err
	})
}

func (d *DB) tx(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := d.sql.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func toTime(ns int64) time.Time { return time.Unix(0, ns).UTC() }
