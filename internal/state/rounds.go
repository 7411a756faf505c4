package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"
)

// Outcome is how a round ended.
type Outcome string

// The outcomes of a round.
const (
	Done        Outcome = "done"
	Warnings    Outcome = "warnings" // a VM was skipped, or an image rolled back
	FailedRound Outcome = "failed"
	Interrupted Outcome = "interrupted" // drydock died; recover tidied up
)

// Phase is where in a step a journal entry was written.
type Phase string

// The phases of a step. Begin is written before the act.
const (
	Begin  Phase = "begin"
	End    Phase = "done"
	Failed Phase = "failed"
)

// Round is one round in the history.
type Round struct {
	ID      string          `json:"round"`
	Started time.Time       `json:"started"`
	Ended   time.Time       `json:"ended,omitzero"`
	Outcome Outcome         `json:"outcome,omitempty"`
	Report  json.RawMessage `json:"report,omitempty"`
}

// Entry is one line of a round's journal.
type Entry struct {
	Round string
	VM    string
	Step  string
	Phase Phase
	Data  json.RawMessage // of the step; may be empty
	At    time.Time
}

// BeginRound opens a round. Rounds that are open already must be recovered
// first; see [DB.Open].
func (d *DB) BeginRound(ctx context.Context, id string, at time.Time) error {
	_, err := d.sql.ExecContext(ctx, "INSERT INTO rounds (id, started_at) VALUES (?, ?)", id, at.UnixNano())
	if err != nil {
		return fmt.Errorf("journal: begin round %s: %w", id, err)
	}
	return nil
}

// Record writes one journal entry and returns when it is on the disk.
func (d *DB) Record(ctx context.Context, e Entry) error {
	_, err := d.sql.ExecContext(ctx,
		"INSERT INTO journal (round, vm, step, phase, data, at) VALUES (?, ?, ?, ?, ?, ?)",
		e.Round, e.VM, e.Step, string(e.Phase), string(e.Data), e.At.UnixNano())
	if err != nil {
		return fmt.Errorf("journal: record %s of %s: %w", e.Step, e.VM, err)
	}
	return nil
}

// EndRound closes a round with its report and those of its VMs.
func (d *DB) EndRound(ctx context.Context, r Round, vms map[string]json.RawMessage) error {
	err := d.tx(ctx, func(tx *sql.Tx) error {
		for vm, report := range vms {
			if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO vm_rounds (round, vm, report) VALUES (?, ?, ?)",
				r.ID, vm, string(report)); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, "UPDATE rounds SET ended_at = ?, outcome = ?, report = ? WHERE id = ?",
			r.Ended.UnixNano(), string(r.Outcome), string(r.Report), r.ID)
		return err
	})
	if err != nil {
		return fmt.Errorf("journal: end round %s: %w", r.ID, err)
	}
	return nil
}

// OpenRounds returns the rounds that began and did not end, oldest first: all
// of them were cut off, unless the caller's own is among them.
func (d *DB) OpenRounds(ctx context.Context) ([]Round, error) {
	return d.rounds(ctx, "WHERE ended_at IS NULL ORDER BY started_at", nil)
}

// Rounds returns the newest rounds, newest first, at most limit.
func (d *DB) Rounds(ctx context.Context, limit int) ([]Round, error) {
	return d.rounds(ctx, "ORDER BY started_at DESC LIMIT ?", []any{limit})
}

func (d *DB) rounds(ctx context.Context, tail string, args []any) ([]Round, error) {
	rows, err := d.sql.QueryContext(ctx, "SELECT id, started_at, ended_at, outcome, report FROM rounds "+tail, args...)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	defer rows.Close()
	var out []Round
	for rows.Next() {
		var r Round
		var started int64
		var ended sql.NullInt64
		var report string
		if err := rows.Scan(&r.ID, &started, &ended, &r.Outcome, &report); err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}
		r.Started = toTime(started)
		if ended.Valid {
			r.Ended = toTime(ended.Int64)
		}
		if report != "" {
			r.Report = json.RawMessage(report)
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// Journal returns the entries of a round in the order in which they were
// written.
func (d *DB) Journal(ctx context.Context, round string) ([]Entry, error) {
	rows, err := d.sql.QueryContext(ctx, "SELECT round, vm, step, phase, data, at FROM journal WHERE round = ? ORDER BY seq", round)
	if err != nil {
		return nil, fmt.Errorf("journal of round %s: %w", round, err)
	}
	defer rows.Close()
	var out []Entry
	for rows.Next() {
		var e Entry
		var data string
		var at int64
		if err := rows.Scan(&e.Round, &e.VM, &e.Step, &e.Phase, &data, &at); err != nil {
			return nil, fmt.Errorf("journal of round %s: %w", round, err)
		}
		e.At = toTime(at)
		if data != "" {
			e.Data = json.RawMessage(data)
		}
		out = append(out, e)
	}
	return out, rows.Err()
}

// VMReports returns the newest reports of one VM, newest first, at most limit.
func (d *DB) VMReports(ctx context.Context, vm string, limit int) ([]json.RawMessage, error) {
	rows, err := d.sql.QueryContext(ctx, `SELECT v.report FROM vm_rounds v JOIN rounds r ON r.id = v.round
		WHERE v.vm = ? ORDER BY r.started_at DESC LIMIT ?`, vm, limit)
	if err != nil {
		return nil, fmt.Errorf("history of %s: %w", vm, err)
	}
	defer rows.Close()
	var out []json.RawMessage
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, fmt.Errorf("history of %s: %w", vm, err)
		}
		out = append(out, json.RawMessage(s))
	}
	return out, rows.Err()
}
