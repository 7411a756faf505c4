package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Snapshot is a snapshot that was, or was about to be, taken and is not yet
// known to be gone.
type Snapshot struct {
	Round, VM, Disk string
	Data            json.RawMessage
}

// AddSnapshot remembers a snapshot before it is taken, and again, with more in
// Data, when it has been.
func (d *DB) AddSnapshot(ctx context.Context, s Snapshot) error {
	_, err := d.sql.ExecContext(ctx, "INSERT OR REPLACE INTO snapshots (round, vm, disk, data) VALUES (?, ?, ?, ?)",
		s.Round, s.VM, s.Disk, string(s.Data))
	if err != nil {
		return fmt.Errorf("remember snapshot of %s/%s: %w", s.VM, s.Disk, err)
	}
	return nil
}

// DropSnapshot forgets a snapshot that is gone.
func (d *DB) DropSnapshot(ctx context.Context, s Snapshot) error {
	_, err := d.sql.ExecContext(ctx, "DELETE FROM snapshots WHERE round = ? AND vm = ? AND disk = ?", s.Round, s.VM, s.Disk)
	if err != nil {
		return fmt.Errorf("forget snapshot of %s/%s: %w", s.VM, s.Disk, err)
	}
	return nil
}

// Snapshots returns the snapshots of a VM that are still to be dropped.
func (d *DB) Snapshots(ctx context.Context, vm string) ([]Snapshot, error) {
	rows, err := d.sql.QueryContext(ctx, "SELECT round, vm, disk, data FROM snapshots WHERE vm = ? ORDER BY round, disk", vm)
	if err != nil {
		return nil, fmt.Errorf("snapshots of %s: %w", vm, err)
	}
	defer rows.Close()
	var out []Snapshot
	for rows.Next() {
		var s Snapshot
		var data string
		if err := rows.Scan(&s.Round, &s.VM, &s.Disk, &data); err != nil {
			return nil, fmt.Errorf("snapshots of %s: %w", vm, err)
		}
		s.Data = json.RawMessage(data)
		out = append(out, s)
	}
	return out, rows.Err()
}

// Build is one BUILD: the builder was started with this specification.
type Build struct {
	ID         string    `json:"id"`
	VM         string    `json:"vm"`
	SpecDigest string    `json:"spec_digest"`
	Started    time.Time `json:"started"`
	Harvested  time.Time `json:"harvested,omitzero"` // zero until its images are in the store
}

// StartBuild remembers a build before the builder is started with it. Asked
// again for the same ID, it changes nothing.
func (d *DB) StartBuild(ctx context.Context, b Build) error {
	_, err := d.sql.ExecContext(ctx, "INSERT OR IGNORE INTO builds (id, vm, spec_digest, started_at) VALUES (?, ?, ?, ?)",
		b.ID, b.VM, b.SpecDigest, b.Started.UnixNano())
	if err != nil {
		return fmt.Errorf("remember build %s: %w", b.ID, err)
	}
	return nil
}

// FinishBuild says that the images of build id are in the store.
func (d *DB) FinishBuild(ctx context.Context, id string, at time.Time) error {
	_, err := d.sql.ExecContext(ctx, "UPDATE builds SET harvested_at = ? WHERE id = ?", at.UnixNano(), id)
	if err != nil {
		return fmt.Errorf("finish build %s: %w", id, err)
	}
	return nil
}

// LastBuild returns the newest build of a VM, and LastHarvest the newest whose
// images were harvested; nil where there is none.
func (d *DB) LastBuild(ctx context.Context, vm string) (*Build, error) {
	return d.build(ctx, vm, "")
}

// LastHarvest is described at [DB.LastBuild].
func (d *DB) LastHarvest(ctx context.Context, vm string) (*Build, error) {
	return d.build(ctx, vm, "AND harvested_at IS NOT NULL")
}

func (d *DB) build(ctx context.Context, vm, and string) (*Build, error) {
	b := Build{VM: vm}
	var started int64
	var harvested sql.NullInt64
	err := d.sql.QueryRowContext(ctx, "SELECT id, spec_digest, started_at, harvested_at FROM builds WHERE vm = ? "+and+
		" ORDER BY started_at DESC LIMIT 1", vm).Scan(&b.ID, &b.SpecDigest, &started, &harvested)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("builds of %s: %w", vm, err)
	}
	b.Started = toTime(started)
	if harvested.Valid {
		b.Harvested = toTime(harvested.Int64)
	}
	return &b, nil
}
