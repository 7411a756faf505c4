package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Proof is a look at the backups of a VM: whether they can be read back.
type Proof struct {
	Place  string          `json:"place,omitempty"` // of copies that were looked at; empty: the repository
	VM     string          `json:"vm,omitempty"`    // empty: all backups that are there
	Mode   string          `json:"mode"`
	At     time.Time       `json:"at"`
	Report json.RawMessage `json:"report"`
}

// AddProofs remembers what one look proved, all of it or nothing.
func (d *DB) AddProofs(ctx context.Context, proofs []Proof) error {
	err := d.tx(ctx, func(tx *sql.Tx) error {
		for _, p := range proofs {
			if _, err := tx.ExecContext(ctx, "INSERT INTO proofs (place, vm, mode, at, report) VALUES (?, ?, ?, ?, ?)",
				p.Place, p.VM, p.Mode, p.At.UnixNano(), string(p.Report)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remember what was verified: %w", err)
	}
	return nil
}

// maxProofs is how far LastProof looks back for one of a mode.
const maxProofs = 400

// LastProof returns the newest proof of a VM at a place, each of them as in [Proof], of
// one of the modes if any are given; nil if there is none.
func (d *DB) LastProof(ctx context.Context, place, vm string, modes ...string) (*Proof, error) {
	rows, err := d.sql.QueryContext(ctx, "SELECT mode, at, report FROM proofs WHERE place = ? AND vm = ? ORDER BY seq DESC LIMIT ?", place, vm, maxProofs)
	if err != nil {
		return nil, fmt.Errorf("what was verified of %q: %w", vm, err)
	}
	defer rows.Close()
	for rows.Next() {
		p := Proof{Place: place, VM: vm}
		var at int64
		var report string
		if err := rows.Scan(&p.Mode, &at, &report); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		if len(modes) == 0 || slices.Contains(modes, p.Mode) {
			p.At, p.Report = toTime(at), json.RawMessage(report)
			return &p, nil
		}
	}
	return nil, rows.Err()
}
