package retain_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/retain"
)

// randomPolicy sets some of the counts.
func randomPolicy(rng *rand.Rand) retain.Policy {
	some := func(most int) int {
		if rng.IntN(2) == 0 {
			return 0
		}
		return rng.IntN(most)
	}
	p := retain.Policy{Last: some(6), Hourly: some(40), Daily: some(30), Weekly: some(20), Monthly: some(30), Yearly: some(5)}
	if rng.IntN(3) == 0 {
		p.Within = retain.Span{Years: rng.IntN(2), Months: rng.IntN(4), Days: rng.IntN(40), Hours: rng.IntN(30)}
	}
	if p.Empty() {
		p.Last = 1
	}
	return p
}

// resticArgs is the policy for restic forget.
func resticArgs(p retain.Policy) []string {
	var args []string
	for name, n := range map[string]int{"last": p.Last, "hourly": p.Hourly, "daily": p.Daily, "weekly": p.Weekly, "monthly": p.Monthly, "yearly": p.Yearly} {
		if n > 0 {
			args = append(args, "--keep-"+name, strconv.Itoa(n))
		}
	}
	if !p.Within.IsZero() {
		args = append(args, "--keep-within", p.Within.String())
	}
	return append(args, "--keep-tag", backup.TagPinned)
}

// forgotten is what the real restic would remove.
func (p place) forgotten(t *testing.T, policy retain.Policy) []string {
	t.Helper()
	var groups []struct{ Remove []struct{ ID string } }
	out := p.restic(t, append([]string{"forget", "--dry-run", "--json"}, resticArgs(policy)...)...)
	if err := json.Unmarshal([]byte(out), &groups); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var ids []string
	for _, g := range groups {
		for _, s := range g.Remove {
			ids = append(ids, s.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// Over random histories, with random policies, the real restic would remove the
// very same snapshots. The oldest one is an exception: restic from 0.16 on (issue 3624) keeps
// it for a rule that has counts left, and so does drydock with any restic.
func TestPolicyIsRestics(t *testing.T) {
	const histories, policies = 3, 10
	compared := 0
	for seed := range uint64(histories) {
		rng := rand.New(rand.NewPCG(seed, 7))
		p := newPlace(t)
		r := p.open(t)
		randomHistory(t, rng, r)
		for range policies {
			policy := randomPolicy(rng)
			plans, err := retain.Make(t.Context(), r, []retain.VM{{Name: "web", Policy: policy}, {Name: "mail", Policy: policy}}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			restics := p.forgotten(t, policy)
			for _, plan := range plans {
				for i, d := range plan.Backups {
					gone := slices.Contains(restics, d.Snapshot.ID.String())
					if oldest := i == len(plan.Backups)-1; (len(d.Keep) == 0) != gone && !(oldest && gone) {
						t.Errorf("history %d, %s: backup %d of %s is kept for %v, and restic removes it: %v", seed, policy, i, d.Snapshot.Time, d.Keep, gone)
					}
					compared++
				}
			}
		}
	}
	if want := histories * policies * snapshots; compared != want {
		t.Errorf("%d decisions were compared, want %d", compared, want)
	}
}

// snapshots is how many a random history has.
const snapshots = 60

// randomHistory saves backups of two VMs: some nights are close together, some
// years apart, and hosts are in other time zones.
func randomHistory(t *testing.T, rng *rand.Rand, r *repository.Repository) {
	t.Helper()
	now := time.Now()
	for range snapshots {
		spread := []time.Duration{time.Hour, 40 * time.Hour, 2000 * time.Hour}[rng.IntN(3)]
		back := time.Duration(rng.ExpFloat64() * float64(spread))
		zone := time.FixedZone("", []int{0, 3600, -5 * 3600, 5*3600 + 1800, 14 * 3600}[rng.IntN(5)])
		var tags []string
		if rng.IntN(15) == 0 {
			tags = []string{backup.TagPinned}
		}
		save(t, r, []string{"web", "mail"}[rng.IntN(2)], now.Add(-back-time.Second).In(zone), files{"a": 1}, tags...)
	}
}

// reasons are the reasons to keep each backup.
func reasons(p *retain.Plan) map[repository.ID]string {
	out := make(map[repository.ID]string)
	for _, d := range p.Backups {
		out[d.Snapshot.ID] = fmt.Sprint(d.Keep)
	}
	return out
}

func TestWhatNoPolicyRemoves(t *testing.T) {
	p := newPlace(t)
	r := p.open(t)
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	old := save(t, r, "web", ago(72*time.Hour), files{"a": 1})
	pinned := save(t, r, "web", ago(71*time.Hour), files{"a": 1}, backup.TagPinned)
	good := save(t, r, "web", ago(48*time.Hour), files{"a": 1})
	// Its tree is one that nobody has any more: a copy of the good one's file
	// with another tree cannot be saved, so it is taken out of the index.
	lost := save(t, r, "web", ago(24*time.Hour), files{"a": 2})
	future := save(t, r, "web", now.Add(50*time.Hour), files{"a": 1})
	others := save(t, r, "mail", ago(1000*time.Hour), files{"a": 1})
	p.loseTree(t, lost)
	r = p.open(t)

	for name, c := range map[string]struct {
		policy retain.Policy
		want   map[repository.ID]string
	}{
		"empty": {retain.Policy{}, map[repository.ID]string{
			future.ID: "[from the future]", lost.ID: "[no policy]", good.ID: "[no policy last good backup]",
			pinned.ID: "[no policy pinned]", old.ID: "[no policy]",
		}},
		"one": {retain.Policy{Last: 1}, map[repository.ID]string{
			future.ID: "[from the future]", lost.ID: "[last]", good.ID: "[last good backup]", pinned.ID: "[pinned]", old.ID: "[]",
		}},
	} {
		plans, err := retain.Make(t.Context(), r, []retain.VM{{Name: "web", Policy: c.policy}, {Name: "nobody", Policy: c.policy}}, now)
		if err != nil {
			t.Fatal(err)
		}
		if got := reasons(plans[0]); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if n := plans[0].Newest(); n == nil || n.ID != good.ID {
			t.Errorf("%s: the newest good one is %v", name, n)
		}
		if f := plans[0].Futures(); len(f) != 1 || f[0].ID != future.ID {
			t.Errorf("%s: from the future: %v", name, f)
		}
		if len(plans[1].Backups) != 0 || plans[1].Newest() != nil {
			t.Errorf("%s: a VM without backups has %v", name, plans[1].Backups)
		}
	}
	results, err := retain.Apply(t.Context(), r, []retain.VM{{Name: "web", Policy: retain.Policy{Last: 1}}}, now, 0)
	if err != nil || len(results[0].Removed) != 1 || results[0].Removed[0].ID != old.ID {
		t.Errorf("applied: %v, %v", results, err)
	}
	left := p.ids(t)
	if len(left) != 5 || left[others.ID.String()] == nil || left[old.ID.String()] != nil {
		t.Errorf("left are %v", left)
	}
}
