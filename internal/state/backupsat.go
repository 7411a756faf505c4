package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// BackupsAt returns what was last known of the backups at a place, which is called as
// in [Proof]: the ID that each had first, by the one that it has there.
func (d *DB) BackupsAt(ctx context.Context, place string) (map[string]string, error) {
	var out map[string]string
	err := d.tx(ctx, func(tx *sql.Tx) (err error) {
		out, err = backupsAt(ctx, tx, place)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("which backups were at %q: %w", place, err)
	}
	return out, nil
}

func backupsAt(ctx context.Context, tx *sql.Tx, place string) (map[string]string, error) {
	rows, err := tx.QueryContext(ctx, "SELECT id, original FROM backups_at WHERE place = ?", place)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make(map[string]string)
	for rows.Next() {
		var id, original string
		if err := rows.Scan(&id, &original); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		out[id] = original
	}
	return out, rows.Err()
}

// SetBackupsAt remembers the backups at a place, in place of what was known before.
func (d *DB) SetBackupsAt(ctx context.Context, place string, originals map[string]string) error {
	err := d.tx(ctx, func(tx *sql.Tx) error {
		known, err := backupsAt(ctx, tx, place)
		if err != nil {
			return err
		}
		for id, original := range originals {
			if known[id] == original {
				continue
			}
			if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO backups_at (place, id, original) VALUES (?, ?, ?)", place, id, original); err != nil {
				return err
			}
		}
		for id := range known {
			if _, ok := originals[id]; ok {
				continue
			}
			if _, err := tx.ExecContext(ctx, "DELETE FROM backups_at WHERE place = ? AND id = ?", place, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remember which backups are at %q: %w", place, err)
	}
	return nil
}
