package verify

import (
	"fmt"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
)

// Each pack is read once in a cycle, whatever nights are missed, and the cycle
// is as long as the share says.
func TestSampleRotates(t *testing.T) {
	start := time.Date(2026, 11, 24, 2, 30, 0, 0, time.UTC)
	var packs []repository.ID
	for i := range 2000 {
		packs = append(packs, repository.Hash(fmt.Append(nil, i)))
	}
	for _, percent := range []int{1, 4, 7, 50, 100} {
		days := (100 + percent - 1) / percent
		for _, missed := range []int{0, 1, 5} {
			read := map[repository.ID]int{}
			var since time.Time
			for d := 0; d < days; d++ {
				if d%6 >= 6-missed && d != days-1 {
					continue
				}
				now := start.AddDate(0, 0, d)
				turn := newTurn(Options{Mode: Sample, Percent: percent, Now: now, Since: since})
				n := 0
				for _, id := range packs {
					if turn.has(id) {
						read[id]++
						n++
					}
				}
				if want := 2000 / days; missed == 0 && (n < want/2 || n > want*2) {
					t.Errorf("%d %%: %d packs in a day, want some %d", percent, n, want)
				}
				since = now
			}
			for _, id := range packs {
				if read[id] != 1 {
					t.Fatalf("%d %%, %d of 6 nights missed: a pack was read %d times in %d days", percent, missed, read[id], days)
				}
			}
		}
	}
}

// A clock that went backwards, and one that stood still for years, read a share.
func TestSampleClock(t *testing.T) {
	now := time.Date(2026, 11, 24, 2, 30, 0, 0, time.UTC)
	for _, since := range []time.Time{now, now.AddDate(1, 0, 0), now.AddDate(-30, 0, 0), time.Unix(-1, 0)} {
		n := 0
		turn := newTurn(Options{Mode: Sample, Percent: 10, Now: now, Since: since})
		for i := range 1000 {
			if turn.has(repository.Hash(fmt.Append(nil, i))) {
				n++
			}
		}
		if n < 50 || since.Before(now) && n != 1000 {
			t.Errorf("since %v: %d of 1000", since, n)
		}
	}
}
