package state_test

import (
	"database/sql"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/state"
)

func TestProofs(t *testing.T) {
	db := open(t, t.TempDir())
	ctx := t.Context()
	if p, err := db.LastProof(ctx, "", ""); p != nil || err != nil {
		t.Fatalf("before the first: %+v, %v", p, err)
	}
	at := time.Date(2026, 11, 24, 2, 30, 0, 123456789, time.UTC)
	for i, mode := range []string{"full", "sample", "quick"} {
		report := json.RawMessage(`{"mode":"` + mode + `"}`)
		check(t, db.AddProofs(ctx, []state.Proof{
			{Mode: mode, At: at.AddDate(0, 0, i), Report: report},
			{VM: "web", Mode: mode, At: at.AddDate(0, 0, i), Report: report},
			{Place: "nas", VM: "web", Mode: "full", At: at, Report: json.RawMessage(`{"mode":"full"}`)},
		}))
	}
	for _, c := range []struct {
		place, vm string
		modes     []string
		want      string
	}{
		{"", "", nil, "quick"}, {"", "web", nil, "quick"}, {"", "web", []string{"sample", "full"}, "sample"},
		{"", "", []string{"full"}, "full"}, {"", "", []string{"boot"}, ""}, {"", "mail", nil, ""},
		{"nas", "web", nil, "full"}, {"nas", "", nil, ""}, {"cloud", "web", nil, ""},
	} {
		p, err := db.LastProof(ctx, c.place, c.vm, c.modes...)
		check(t, err)
		if c.want == "" && p != nil || c.want != "" && (p == nil || p.Mode != c.want || string(p.Report) != `{"mode":"`+c.want+`"}`) {
			t.Errorf("%q %v: %+v, want %s", c.vm, c.modes, p, c.want)
		}
	}
}

// What was proven before there were places is of the repository.
func TestProofsOfAnOlderDatabase(t *testing.T) {
	dir := t.TempDir()
	check(t, open(t, dir).Close())
	raw, err := sql.Open("sqlite", filepath.Join(dir, "state.db"))
	check(t, err)
	for _, q := range []string{
		"DROP TABLE backups_at", "DROP INDEX proofs_place_vm", "ALTER TABLE proofs DROP COLUMN place", "CREATE INDEX proofs_vm ON proofs(vm)",
		"PRAGMA user_version = 2", "INSERT INTO proofs (vm, mode, at, report) VALUES ('web', 'full', 1, '{}')",
	} {
		_, err := raw.Exec(q)
		check(t, err)
	}
	check(t, raw.Close())
	db := open(t, dir)
	if p, err := db.LastProof(t.Context(), "", "web"); err != nil || p == nil || p.Mode != "full" {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := db.LastProof(t.Context(), "nas", "web"); err != nil || p != nil {
		t.Errorf("at a place: %+v, %v", p, err)
	}
}
