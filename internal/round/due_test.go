package round

import (
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/state"
)

func TestDue(t *testing.T) {
	const week = 7 * 24 * time.Hour
	now := time.Date(2026, 11, 24, 2, 30, 0, 0, time.UTC)
	ago := func(d time.Duration, digest string) *state.Build {
		return &state.Build{SpecDigest: digest, Started: now.Add(-d)}
	}
	for name, c := range map[string]struct {
		last *state.Build
		want bool
	}{
		"never built":             {nil, true},
		"yesterday":               {ago(24*time.Hour, "a"), false},
		"six days":                {ago(6*24*time.Hour, "a"), false},
		"a week":                  {ago(week, "a"), true},
		"a week less some jitter": {ago(week-30*time.Minute, "a"), true},
		"a missed week":           {ago(10*24*time.Hour, "a"), true},
		"changed an hour ago":     {ago(time.Hour, "b"), true},
		"from the future":         {ago(-time.Hour, "a"), true},
	} {
		if got := due(now, week, "a", c.last); got.Due != c.want || got.Reason == "" {
			t.Errorf("%s: due %v (%q), want %v", name, got.Due, got.Reason, c.want)
		}
	}
}
