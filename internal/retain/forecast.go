package retain

import "time"

// Growth is what one round added to the repository.
type Growth struct {
	At     time.Time
	Stored int64 // bytes; first backups, which come once, are not counted
}

// Outlook is how long the free space lasts.
type Outlook struct {
	PerDay int64         // bytes that are added in a day
	Full   time.Duration // until the space is used up, if nothing is pruned; 0 if it is not known
	Reason string        // why it is not known
}

const (
	day = 24 * time.Hour
	// forecastWindow is how far back growth is looked at: last year's says
	// little about the next month.
	forecastWindow = 30 * day
	// forecastSpan is the shortest history that says anything.
	forecastSpan = 2 * day
	// maxForecast is where a forecast ends: nobody knows what will be then.
	maxForecast = 10 * 365 * day
)

// Forecast says how long free bytes last when the repository goes on growing as it
// did in the last 30 days. The order of the history does not matter.
func Forecast(free int64, history []Growth, now time.Time) Outlook {
	var oldest, newest time.Time
	var sum, first int64
	for _, g := range history {
		if g.At.After(now) || now.Sub(g.At) > forecastWindow {
			continue
		}
		sum += g.Stored
		if g.At.After(newest) {
			newest = g.At
		}
		if oldest.IsZero() || g.At.Before(oldest) {
			oldest, first = g.At, g.Stored
		}
	}
	span := newest.Sub(oldest)
	if span < forecastSpan {
		return Outlook{Reason: "there is no history of two days yet"}
	}
	// What the oldest round stored was written before the span begins.
	grown := sum - first
	o := Outlook{PerDay: int64(float64(grown) / (float64(span) / float64(day)))}
	left := float64(max(0, free)) / float64(max(1, grown)) * float64(span)
	if grown <= 0 || left > float64(maxForecast) {
		o.Reason = "it hardly grows"
		return o
	}
	o.Full = max(time.Duration(left), time.Nanosecond)
	return o
}
