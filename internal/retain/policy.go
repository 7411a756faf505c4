package retain

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
)

// Policy says which backups of one VM are kept, in the terms of restic forget:
// Daily is its --keep-daily. The zero value keeps all.
type Policy struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly int

	Within Span // before the newest backup
}

// Empty reports whether the policy keeps all.
func (p Policy) Empty() bool { return p == Policy{} }

// String is the policy as restic forget takes it, without the dashes.
func (p Policy) String() string {
	var parts []string
	for _, r := range p.rules() {
		if r.count > 0 {
			parts = append(parts, fmt.Sprintf("keep-%s %d", r.name, r.count))
		}
	}
	if !p.Within.IsZero() {
		parts = append(parts, "keep-within "+p.Within.String())
	}
	if len(parts) == 0 {
		return "keep all"
	}
	return strings.Join(parts, ", ")
}

// rule keeps the newest backup of each of the count newest periods that have one.
type rule struct {
	name   string
	count  int // that are left to be kept
	period func(at time.Time, nr int) int
	last   int // the period of the backup that the rule kept last
}

// noPeriod is none that a rule's period returns.
const noPeriod = -1

// rules returns the policy's counts. The periods are those of the time zone that
// a backup was made in, and weeks those of ISO 8601, as restic has them.
func (p Policy) rules() []rule {
	return []rule{
		{"last", p.Last, func(_ time.Time, nr int) int { return nr }, noPeriod},
		{"hourly", p.Hourly, func(t time.Time, _ int) int { return date(t)*100 + t.Hour() }, noPeriod},
		{"daily", p.Daily, func(t time.Time, _ int) int { return date(t) }, noPeriod},
		{"weekly", p.Weekly, func(t time.Time, _ int) int { y, w := t.ISOWeek(); return y*100 + w }, noPeriod},
		{"monthly", p.Monthly, func(t time.Time, _ int) int { return date(t) / 100 }, noPeriod},
		{"yearly", p.Yearly, func(t time.Time, _ int) int { return t.Year() }, noPeriod},
	}
}

func date(t time.Time) int { return t.Year()*10000 + int(t.Month())*100 + t.Day() }

// apply returns for each snapshot, the newest of which comes first, the reasons
// to keep it; none means that it goes.
func (p Policy) apply(newestFirst []*repository.Snapshot) [][]string {
	reasons := make([][]string, len(newestFirst))
	rules := p.rules()
	for nr, s := range newestFirst {
		if !p.Within.IsZero() && s.Time.After(p.Within.before(newestFirst[0].Time)) {
			reasons[nr] = append(reasons[nr], "within "+p.Within.String())
		}
		for i := range rules {
			r := &rules[i]
			if r.count == 0 {
				continue
			}
			// A rule that has counts left also keeps the oldest of all: the
			// history is then as long as it can be.
			if at := r.period(s.Time, nr); at != r.last || nr == len(newestFirst)-1 {
				r.last = at
				r.count--
				reasons[nr] = append(reasons[nr], r.name)
			}
		}
	}
	return reasons
}

// Span is a length of time by the calendar, which restic writes like "1y6m" (a
// year and six months) or "14d12h".
type Span struct{ Years, Months, Days, Hours int }

// IsZero reports whether the span is empty.
func (s Span) IsZero() bool { return s == Span{} }

// String writes the span as restic does.
func (s Span) String() string {
	var b strings.Builder
	for _, p := range []struct {
		n    int
		unit byte
	}{{s.Years, 'y'}, {s.Months, 'm'}, {s.Days, 'd'}, {s.Hours, 'h'}} {
		if p.n != 0 {
			b.WriteString(strconv.Itoa(p.n))
			b.WriteByte(p.unit)
		}
	}
	if b.Len() == 0 {
		return "0h"
	}
	return b.String()
}

// before returns the time that lies the span before t.
func (s Span) before(t time.Time) time.Time {
	return t.AddDate(-s.Years, -s.Months, -s.Days).Add(-time.Duration(s.Hours) * time.Hour)
}

// newerFirst compares as restic sorts, and by ID where the times are the same.
func newerFirst(a, b *repository.Snapshot) int {
	if c := b.Time.Compare(a.Time); c != 0 {
		return c
	}
	return bytes.Compare(a.ID[:], b.ID[:])
}
