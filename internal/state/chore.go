package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// ChoreDone remembers when something that is done at intervals was done.
func (d *DB) ChoreDone(ctx context.Context, name string, at time.Time) error {
	_, err := d.sql.ExecContext(ctx, "INSERT OR REPLACE INTO chores (name, done_at) VALUES (?, ?)", name, at.UnixNano())
	if err != nil {
		return fmt.Errorf("remember that %s was done: %w", name, err)
	}
	return nil
}

// LastChore returns when it was done last; the zero time is never.
func (d *DB) LastChore(ctx context.Context, name string) (time.Time, error) {
	var at int64
	err := d.sql.QueryRowContext(ctx, "SELECT done_at FROM chores WHERE name = ?", name).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("when was %s done: %w", name, err)
	}
	return toTime(at), nil
}
