package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/location"
	"github.com/drydock-vm/drydock/internal/retain"
	"github.com/drydock-vm/drydock/internal/round"
)

// repositoryStatus is what drydock status says of the repository.
type repositoryStatus struct {
	Location string `json:"location"`
	held

	Free   int64 `json:"free,omitempty"`    // bytes of the filesystem that a folder lies on
	Total  int64 `json:"total,omitempty"`   // its size
	PerDay int64 `json:"per_day,omitempty"` // bytes that the rounds add in a day
	// FullInDays is when Free is used up, if nothing is pruned; null if that is
	// not known, and Forecast says why.
	FullInDays *int   `json:"full_in_days"`
	Forecast   string `json:"forecast"` // for people

	Prune round.Due `json:"prune"`
}

// held is what a place holds.
type held struct {
	Error   string `json:"error,omitempty"` // why it cannot be looked at
	Backups int    `json:"backups"`         // of all VMs
	Pinned  int    `json:"pinned"`

	newest map[string]time.Time // of the last good backup, by VM
}

// repositoryStatus looks at the repository itself: what drydock remembers says
// nothing of backups that others removed, and of nights on which it did not run.
func (h *host) repositoryStatus(ctx context.Context) (*repositoryStatus, error) {
	s := &repositoryStatus{Location: h.config.Repository.Path}
	var err error
	if s.held, err = h.lookAt(ctx, h.config.Repository); err != nil {
		return nil, err
	}
	if err := h.forecast(ctx, s); err != nil {
		return nil, err
	}
	s.Prune, err = h.runner.PruneDue(ctx)
	return s, err
}

// lookAt says what a place holds, or why that cannot be told.
func (h *host) lookAt(ctx context.Context, c config.Repository) (held, error) {
	s := held{newest: map[string]time.Time{}}
	plans, err := h.plansAt(ctx, c)
	for _, p := range plans {
		s.Backups += len(p.Backups)
		for _, d := range p.Backups {
			if backup.IsPinned(d.Snapshot) {
				s.Pinned++
			}
		}
		if n := p.Newest(); n != nil {
			s.newest[p.VM.Name] = n.Time
		}
	}
	if ctx.Err() != nil {
		return s, context.Cause(ctx)
	}
	if err != nil {
		s.Error = err.Error()
	}
	return s, nil
}

// plansAt returns the backups that a place holds, by VM. A repository that the first
// round has still to make holds nothing.
func (h *host) plansAt(ctx context.Context, c config.Repository) ([]*retain.Plan, error) {
	be, err := h.backend(c)
	if err != nil {
		return nil, err
	}
	if there, err := h.repositoryExists(ctx, c, be); err != nil || !there {
		return nil, err
	}
	repo, err := h.openUnindexed(ctx, c, be) // what its index lacks does not hide the rest
	if err != nil {
		return nil, err
	}
	return retain.Make(ctx, repo, h.policies(h.vms), h.app.now())
}

// forecastRounds is how many rounds a forecast looks at: two a day, for a month.
const forecastRounds = 60

// forecast says how long the space lasts.
func (h *host) forecast(ctx context.Context, s *repositoryStatus) error {
	l, err := location.Parse(h.config.Repository.Path)
	if err != nil {
		return err
	}
	if l.Kind != location.Local {
		s.Forecast = "the free space is not known: only of a folder on this host can it be asked"
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(l.Path, &st); err != nil {
		s.Forecast = "the free space is not known: " + err.Error()
		return nil
	}
	s.Free, s.Total = int64(st.Bavail)*st.Frsize, int64(st.Blocks)*st.Frsize
	rounds, err := h.db.Rounds(ctx, forecastRounds)
	if err != nil {
		return err
	}
	var history []retain.Growth
	for _, r := range rounds {
		var rep round.Report
		if json.Unmarshal(r.Report, &rep) != nil {
			continue // a round that was cut off has no report
		}
		g := retain.Growth{At: r.Started}
		for _, v := range rep.VMs {
			if v.Backup != nil && v.Backup.Parent != "" {
				g.Stored += v.Backup.BytesStored
			}
		}
		history = append(history, g)
	}
	o := retain.Forecast(s.Free, history, h.app.now())
	s.PerDay = o.PerDay
	s.Forecast = fmt.Sprintf("%s of %s free", round.Bytes(s.Free), round.Bytes(s.Total))
	if o.Reason != "" {
		s.Forecast += "; when it is full is not known: " + o.Reason
		return nil
	}
	days := int(o.Full / (24 * time.Hour))
	s.FullInDays = &days
	s.Forecast += fmt.Sprintf("; full in about %d days at %s a day, if nothing is pruned", days, round.Bytes(o.PerDay))
	return nil
}

// line is the status of the repository for people.
func (s *repositoryStatus) line() string {
	pinned := ""
	if s.Pinned > 0 {
		pinned = fmt.Sprintf(", %d of them pinned", s.Pinned)
	}
	return escape.Line(fmt.Sprintf("repository %s: %d backups%s; %s", s.Location, s.Backups, pinned, s.Forecast))
}
