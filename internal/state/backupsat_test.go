package state_test

import (
	"fmt"
	"maps"
	"testing"
)

func TestBackupsAt(t *testing.T) {
	db := open(t, t.TempDir())
	ctx := t.Context()
	check(t, db.SetBackupsAt(ctx, "nas", map[string]string{"b": "c"}))
	for _, want := range []map[string]string{{"a": "x", "b": "y"}, {"a": "x", "b": "z", "c": "y"}, {"c": "y"}, {}} {
		check(t, db.SetBackupsAt(ctx, "", want))
		got, err := db.BackupsAt(ctx, "")
		check(t, err)
		if !maps.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	if got, err := db.BackupsAt(ctx, "nas"); err != nil || fmt.Sprint(got) != "map[b:c]" {
		t.Errorf("at another place: %v, %v", got, err)
	}
}
