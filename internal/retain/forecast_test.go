package retain_test

import (
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/retain"
)

func TestForecast(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	// nights is a history with one round a day, the newest a few hours ago.
	nights := func(n int, stored int64) []retain.Growth {
		var h []retain.Growth
		for i := range n {
			h = append(h, retain.Growth{At: now.Add(-5*time.Hour - time.Duration(i)*day), Stored: stored})
		}
		return h
	}
	const gib = 1 << 30
	for name, c := range map[string]struct {
		free    int64
		history []retain.Growth
		perDay  int64
		full    time.Duration
		known   bool
	}{
		"a GiB a day":          {40 * gib, nights(20, gib), gib, 40 * day, true},
		"older rounds":         {40 * gib, append(nights(20, gib), retain.Growth{At: now.Add(-31 * day), Stored: 1 << 50}), gib, 40 * day, true},
		"rounds of the future": {40 * gib, append(nights(20, gib), retain.Growth{At: now.Add(day), Stored: 1 << 50}), gib, 40 * day, true},
		"the first night":      {10 * gib, append(nights(5, gib), retain.Growth{At: now.Add(-5 * day), Stored: 100 * gib}), gib, 10 * day, true},
		"full already":         {0, nights(20, gib), gib, time.Nanosecond, true},
		"more used than is":    {-5, nights(20, gib), gib, time.Nanosecond, true},
		"two nights":           {gib, nights(2, gib), 0, 0, false},
		"no history":           {gib, nil, 0, 0, false},
		"nothing is added":     {gib, nights(20, 0), 0, 0, false},
		"centuries":            {1 << 60, nights(20, 1), 1, 0, false},
	} {
		got := retain.Forecast(c.free, c.history, now)
		// The first night of the fifth case is five hours short of a day away.
		if near := func(a, b int64) bool { return a > b*85/100-2 && a < b*115/100+2 }; !near(got.PerDay, c.perDay) || !near(int64(got.Full), int64(c.full)) || (got.Reason == "") != c.known {
			t.Errorf("%s: %+v, want %d a day, full in %s", name, got, c.perDay, c.full)
		}
	}
}
