package state_test

import (
	"encoding/json"
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
