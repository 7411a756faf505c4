package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"time"

	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/health"
	"github.com/drydock-vm/drydock/internal/image"
	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/round"
	"github.com/drydock-vm/drydock/internal/snapshot"
	"github.com/drydock-vm/drydock/internal/vm"
)

// machines implements [round.Machines] with the probes of the configuration.
type machines struct{ h *host }

func (m *machines) ConsoleMark(v round.VM) int64 {
	path := consolePath(v.Machine)
	if path == "" {
		return 0
	}
	// A console that cannot be looked at is searched from its beginning: then
	// an old line may pass for a new one, but no healthy VM is rolled back.
	mark, _ := health.ConsoleMark(path)
	return mark
}

// consolePath is where a machine's console is kept, or "".
func consolePath(m vm.Machine) string {
	c, ok := m.(vm.Console)
	if !ok {
		return ""
	}
	return c.ConsolePath()
}

func (m *machines) Healthy(ctx context.Context, v round.VM, mark int64) error {
	hc := m.h.config.VMs[v.Name].Health
	probes, err := healthProbes(v.Machine, hc.Probes, mark, nil)
	if err != nil {
		return err
	}
	_, err = health.Check(ctx, probes, health.Options{Timeout: time.Duration(hc.Timeout), Interval: time.Duration(hc.Interval)})
	return err
}

// healthProbes makes the probes of a machine. Where forward has an address that a
// probe asks, another one is asked in its place.
func healthProbes(m vm.Machine, configured []config.Probe, mark int64, forward map[string]string) ([]health.Probe, error) {
	var out []health.Probe
	for _, p := range configured {
		switch {
		case p.TCP != "":
			out = append(out, health.TCP(cmp.Or(forward[p.TCP], p.TCP)))
		case p.HTTP != "":
			connect := forward[probeAddress(p)]
			out = append(out, health.HTTP(p.HTTP, health.Expect{Status: p.Status, Text: p.Text, Connect: connect}))
		case p.Console != "":
			path := consolePath(m)
			if path == "" {
				return nil, errors.New("a console probe needs a console (set console: to the file that the unit writes it to)")
			}
			re, err := regexp.Compile(p.Console)
			if err != nil {
				return nil, err
			}
			out = append(out, health.Console(path, mark, re))
		case p.Active:
			out = append(out, health.Active(func(ctx context.Context) (bool, error) {
				s, err := m.State(ctx)
				return s == vm.Running, err
			}))
		}
	}
	return out, nil
}

// probeAddress is the HOST:PORT that a probe asks, or "".
func probeAddress(p config.Probe) string {
	if p.HTTP == "" {
		return p.TCP
	}
	u, err := url.Parse(p.HTTP)
	if err != nil {
		return "" // the configuration was checked
	}
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))
}

// snapshots implements [round.Snapshots].
type snapshots struct {
	h *host
	s *snapshot.Snapshotter
}

func (s *snapshots) disk(v round.VM, d round.Disk) snapshot.Disk {
	return snapshot.Disk{Path: d.Path, Format: d.Format, Kind: snapshot.Kind(s.h.config.VMs[v.Name].Snapshot)}
}

func (s *snapshots) Plan(ctx context.Context, v round.VM, d round.Disk) (kind, reason string) {
	p, err := s.s.Plan(ctx, s.disk(v, d))
	if err != nil {
		return round.KindNone, err.Error()
	}
	return string(p.Kind), p.Reason
}

func (s *snapshots) Take(ctx context.Context, v round.VM, d round.Disk, name string) (round.Snapshot, error) {
	s.h.bitmaps.begin(ctx, v, d, name)
	got, err := s.s.Take(ctx, s.disk(v, d), name)
	s.h.bitmaps.frozen(ctx, v, d)
	return round.Snapshot{Kind: string(got.Kind), Name: got.Name, Path: got.Path, Format: got.Format}, err
}

func (s *snapshots) Release(ctx context.Context, v round.VM, r round.Snapshot) error {
	live, _ := v.Machine.(snapshot.LiveDeleter)
	err := s.s.Release(ctx, stored(r), live)
	if errors.Is(err, imagelock.ErrInUse) {
		return round.ErrNotNow
	}
	return err
}

func (s *snapshots) Sweep(ctx context.Context, v round.VM, d round.Disk) error {
	left, err := s.s.Leftovers(ctx, s.disk(v, d))
	if err != nil {
		return err
	}
	for _, l := range left {
		if err := s.s.Release(ctx, l, nil); err != nil {
			return err
		}
	}
	return nil
}

func stored(r round.Snapshot) snapshot.Snapshot {
	return snapshot.Snapshot{Kind: snapshot.Kind(r.Kind), Name: r.Name, Path: r.Path, Format: r.Format}
}

// sources implements [round.Sources].
type sources struct {
	store   *image.Store
	bitmaps *bitmaps
}

func (s sources) Open(v round.VM, d round.Disk, r round.Snapshot) (round.Source, error) {
	identity := ""
	if d.Image != "" {
		in, _, err := s.store.Installed(v.Name, d.Name)
		if err != nil {
			return round.Source{}, err
		}
		identity = in.SHA256
	}
	if r.Kind == round.KindNone { // nothing was taken
		s.bitmaps.begin(context.Background(), v, d, r.Name)
	}
	src := stored(r).Source()
	f, err := os.Open(src.Path)
	if err != nil {
		return round.Source{}, err
	}
	out := round.Source{Disk: d, File: f, Format: src.Format, Internal: src.QCOW2Snapshot, Identity: identity}
	if r.Kind == round.KindNone {
		out.Unfrozen = true
		if _, err := imagelock.Acquire(f, imagelock.ReadShared); err != nil {
			f.Close()
			return round.Source{}, err
		}
		s.bitmaps.frozen(context.Background(), v, d)
	}
	return out, nil
}

// rootDisks implements [round.Images] with the image store.
type rootDisks struct{ store *image.Store }

func (r *rootDisks) Target(_ context.Context, v round.VM, d round.Disk) (round.Version, string, bool, error) {
	installed := ""
	in, ok, err := r.store.Installed(v.Name, d.Name)
	if err != nil {
		return round.Version{}, "", false, err
	}
	if ok && in.Image == d.Image {
		installed = in.Version
	}
	cur, err := r.store.Current(d.Image)
	if errors.Is(err, image.ErrNoVersion) {
		return round.Version{}, installed, false, nil
	}
	return round.Version{Image: cur.Image, ID: cur.ID, Digest: cur.SHA256}, installed, err == nil, err
}

func (r *rootDisks) get(v round.Version) (image.Version, error) { return r.store.Get(v.Image, v.ID) }

func (r *rootDisks) Prepare(ctx context.Context, d round.Disk, v round.Version) error {
	iv, err := r.get(v)
	if err != nil {
		return err
	}
	return r.store.Prepare(ctx, iv, image.Target{Path: d.Path, Format: d.Format})
}

func (r *rootDisks) Discard(d round.Disk) error { return r.store.Discard(d.Path) }
func (r *rootDisks) Switch(d round.Disk) error  { return r.store.Switch(d.Path) }
func (r *rootDisks) Undo(d round.Disk) error    { return r.store.Undo(d.Path) }

func (r *rootDisks) Switched(d round.Disk) (bool, error) {
	stage, err := r.store.Stage(d.Path)
	return stage == image.Switched, err
}

func (r *rootDisks) Commit(_ context.Context, v round.VM, d round.Disk, version round.Version) error {
	iv, err := r.get(version)
	if err != nil {
		return err
	}
	return r.store.Commit(v.Name, d.Name, d.Path, iv)
}

func (r *rootDisks) MarkBad(_ context.Context, v round.Version, reason string) error {
	if err := r.store.MarkBad(v.Image, v.ID, reason); err != nil {
		return fmt.Errorf("mark %s bad: %w", v, err)
	}
	return nil
}
