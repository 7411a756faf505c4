package copy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/copy"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/retain"
	"github.com/drydock-vm/drydock/internal/verify"
)

// files returns those of a folder of the repository.
func (p place) files(folder string) []string {
	p.t.Helper()
	pattern := filepath.Join(p.dir, folder, "*")
	if folder == "data" {
		pattern = filepath.Join(p.dir, folder, "*", "*")
	}
	all, err := filepath.Glob(pattern)
	if err != nil || len(all) == 0 {
		p.t.Fatalf("nothing in %s: %v", folder, err)
	}
	return all
}

// treePacks are the packs with folders in them.
func (p place) treePacks() []string {
	p.t.Helper()
	repo := p.open(local.New(p.dir))
	var out []string
	for _, s := range p.snapshots() {
		for _, id := range repo.PackOf(repository.Blob{Type: repository.TreeBlob, ID: s.Tree}) {
			out = append(out, filepath.Join(p.dir, "data", id.String()[:2], id.String()))
		}
	}
	return out
}

func (p place) snapshots() []*repository.Snapshot {
	p.t.Helper()
	all, err := p.open(local.New(p.dir)).Snapshots(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return all
}

func flipBits(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, uint64(len(data))))
	for range 3 {
		flip(t, path, r.IntN(len(data)))
	}
}

// flip changes one bit.
func flip(t *testing.T, path string, at int) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[at] ^= 4
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// harm is what happens to a place. It returns how many packs are damaged by it.
var harm = map[string]func(*testing.T, place) int{
	"bits of a pack": func(t *testing.T, p place) int { flipBits(t, p.files("data")[0]); return 1 },
	"all packs": func(t *testing.T, p place) int {
		for _, f := range p.files("data") {
			flipBits(t, f)
		}
		return len(p.files("data"))
	},
	"a pack is gone": func(t *testing.T, p place) int { remove(t, p.files("data")[0]); return 1 },
	"the folders are gone": func(t *testing.T, p place) int {
		packs := map[string]bool{}
		for _, f := range p.treePacks() {
			packs[f] = true
		}
		for f := range packs {
			remove(t, f)
		}
		return len(packs)
	},
	"a pack is cut off": func(t *testing.T, p place) int {
		f := p.files("data")[0]
		if err := errors.Join(os.Chmod(f, 0o600), os.Truncate(f, 100)); err != nil {
			t.Fatal(err)
		}
		return 1
	},
	"a pack and all index files": func(t *testing.T, p place) int {
		flip(t, p.files("data")[0], 20) // its header can be read
		for _, f := range p.files("index") {
			flipBits(t, f)
		}
		return 1
	},
	"the index is gone": func(t *testing.T, p place) int {
		for _, f := range p.files("index") {
			remove(t, f)
		}
		return 0
	},
	"no index file can be read": func(t *testing.T, p place) int {
		for _, f := range p.files("index") {
			flipBits(t, f)
		}
		return 0
	},
}

// restores makes sure that the newest backup of web is what it is of.
func (p place) restores(src string) {
	p.t.Helper()
	out := p.t.TempDir()
	p.restic("restore", "latest", "--host", "web", "--target", out)
	if diff, err := exec.Command("diff", "-r", src, filepath.Join(out, src)).CombinedOutput(); err != nil {
		p.t.Errorf("it restores as something else: %v\n%s", err, diff)
	}
}

// repaired verifies one place with another to take what is lost from.
func repaired(t *testing.T, p, other place, change ...func(*verify.Options)) *verify.Report {
	t.Helper()
	from := other.open(local.New(other.dir))
	repo, err := repository.Open(t.Context(), local.New(p.dir), []byte(p.password), repository.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := verify.Options{
		Mode: verify.Full, Repair: true,
		Source: func(ctx context.Context, b repository.Blob) ([]byte, error) {
			return from.LoadBlob(ctx, b.Type, b.ID, nil)
		},
	}
	for _, c := range change {
		c(&o)
	}
	report, err := verify.Run(t.Context(), repo, o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// Whatever a place has lost comes back from the other one, at the copy as at the
// repository, and the real restic finds both whole afterwards.
func TestHeal(t *testing.T) {
	for name, do := range harm {
		t.Run(name, func(t *testing.T) {
			from, to := newPlace(t, "one key"), newPlace(t, "another key")
			src := fill(t, from)
			if _, err := run(t, from.open(local.New(from.dir)), to.open(local.New(to.dir))); err != nil {
				t.Fatal(err)
			}
			for _, hit := range []place{to, from} {
				other := from
				if hit.dir == from.dir {
					other = to
				}
				packs := do(t, hit)
				report := repaired(t, hit, other)
				if !report.Good() || len(report.Replaced) != packs || report.Rescued == 0 && packs > 0 {
					t.Errorf("%d packs are damaged: %+v", packs, report)
				}
				if again := repaired(t, hit, other); !again.Good() || len(again.Replaced)+again.Rescued+len(again.Reindexed)+again.Spare > 0 {
					t.Errorf("again: %+v", again)
				}
			}
			for _, p := range []place{to, from} {
				if out := p.restic("check", "--read-data"); !strings.Contains(out, "no errors were found") {
					t.Errorf("restic check: %s", out)
				}
				p.restores(src)
				p.restic("prune", "--max-unused", "0")
				p.restores(src)
			}
		})
	}
}

// What the structure shows to be lost comes back without the content being read, also of
// one VM alone.
func TestHealQuick(t *testing.T) {
	for name, change := range map[string]func(*verify.Options){
		"all": func(o *verify.Options) { o.Mode = verify.Quick },
		"one VM": func(o *verify.Options) {
			o.Mode, o.Wanted = verify.Quick, func(s *repository.Snapshot) bool { return s.Hostname == "web" }
		},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := newPlace(t, "one key"), newPlace(t, "another key")
			src := fill(t, from)
			from.restic("backup", "--host", "mail", src)
			if _, err := run(t, from.open(local.New(from.dir)), to.open(local.New(to.dir))); err != nil {
				t.Fatal(err)
			}
			for _, f := range to.files("data") {
				remove(t, f)
			}
			if r := repaired(t, to, from, change); !r.Good() || len(r.Replaced) == 0 || r.Rescued == 0 || r.BytesRead != 0 || len(r.Backups) < 2 {
				t.Errorf("%+v", r)
			}
			to.restores(src)
			if r := repaired(t, to, from); !r.Good() {
				t.Errorf("%+v", r)
			}
			to.restic("check", "--read-data")
		})
	}
}

// What neither place has stays lost and is named, and what else lay in the pack is there
// as before.
func TestHealInPart(t *testing.T) {
	from, to := newPlace(t, "one key"), newPlace(t, "another key")
	fill(t, from)
	if _, err := run(t, from.open(local.New(from.dir)), to.open(local.New(to.dir))); err != nil {
		t.Fatal(err)
	}
	for _, p := range []place{from, to} {
		for _, f := range p.files("data") {
			remove(t, f)
		}
	}
	report := repaired(t, to, from)
	if report.Good() || len(report.Replaced) > 0 || report.Rescued > 0 || report.DamageTotal != len(to.open(local.New(to.dir)).Packs()) {
		t.Errorf("%+v", report)
	}
}

// A copy does not believe what the index of the place says of packs that are gone, and
// makes index files again that cannot be read.
func TestMend(t *testing.T) {
	for name, want := range map[string]struct{ packs, indexes int }{
		"": {}, "the folders are gone": {packs: 1}, "a pack is gone": {packs: 1}, "a pack is cut off": {packs: 1}, "no index file can be read": {indexes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := newPlace(t, "one key"), newPlace(t, "another key")
			src := fill(t, from)
			all := from.snapshots()
			if _, err := copy.Run(t.Context(), from.open(local.New(from.dir)), to.open(local.New(to.dir)), all[:1]); err != nil {
				t.Fatal(err)
			}
			if do := harm[name]; do != nil {
				do(t, to)
			}
			repo, err := repository.Open(t.Context(), local.New(to.dir), []byte(to.password), repository.Options{})
			if err != nil {
				t.Fatal(err)
			}
			first := from.open(local.New(from.dir))
			m, err := copy.Mend(t.Context(), first, repo, 0)
			if err != nil || len(m.Packs) != want.packs || len(m.Indexes) != want.indexes || (m.Blobs > 0) != (want.packs > 0) {
				t.Errorf("%+v, %v", m, err)
			}
			if rep, err := copy.Run(t.Context(), first, repo, all); err != nil || rep.Copied != 1 || rep.Present != 1 {
				t.Errorf("%+v, %v", rep, err)
			}
			to.restic("check", "--read-data")
			to.restores(src)
		})
	}
}

// An index file that is gone is noticed by the packs that no other names: they are in the
// index again, and nothing is copied a second time. What a copy that was cut off has left
// is taken in as well, and is no loss. What the index has elsewhere is left to a prune.
func TestMendIndexThatIsGone(t *testing.T) {
	from, to := newPlace(t, "one key"), newPlace(t, "another key")
	src := fill(t, from)
	first := from.open(local.New(from.dir))
	if _, err := run(t, first, to.open(local.New(to.dir))); err != nil {
		t.Fatal(err)
	}
	mend := func(packs, lost int) {
		t.Helper()
		repo, err := repository.Open(t.Context(), local.New(to.dir), []byte(to.password), repository.Options{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := copy.Mend(t.Context(), first, repo, 0)
		if err != nil || len(m.Unnamed) != packs || m.Lost != lost || m.Blobs > 0 {
			t.Errorf("%+v, %v, want %d packs and %d backups", m, err, packs, lost)
		}
	}
	all := len(to.files("data"))
	for _, f := range to.files("index") {
		remove(t, f)
	}
	mend(all, 2)
	mend(0, 0)
	if n := len(to.files("data")); n != all {
		t.Errorf("there are %d packs, and were %d", n, all)
	}
	to.restic("check", "--read-data")
	to.restores(src)

	// Two writers died before they wrote an index. The blob of one is stored since then.
	for _, text := range []string{"of a copy that was cut off", "stored since then"} {
		half := to.open(local.New(to.dir))
		if _, _, err := half.SaveBlob(t.Context(), repository.DataBlob, []byte(text)); err != nil {
			t.Fatal(err)
		}
		before := to.files("index")
		if err := half.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, f := range to.files("index") {
			if !slices.Contains(before, f) {
				remove(t, f)
			}
		}
	}
	again := to.open(local.New(to.dir))
	if _, _, err := again.SaveBlob(t.Context(), repository.DataBlob, []byte("stored since then")); err != nil {
		t.Fatal(err)
	}
	if err := again.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Others may be writing such packs: they are left alone.
	lock, err := again.Lock(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	mend(0, 0)
	if err := lock.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	mend(1, 0)
	mend(0, 0)
	to.restic("check", "--read-data")
}

// That another pack is replaced on the way does not hide that one is lost.
func TestMendInPart(t *testing.T) {
	from, to := newPlace(t, "one key"), newPlace(t, "another key")
	lost, replaced := to.open(local.New(to.dir)), to.open(local.New(to.dir))
	for _, pack := range []struct {
		repo  *repository.Repository
		blobs []string
	}{{lost, []string{"x", "y"}}, {replaced, []string{"y", "z"}}, {from.open(local.New(from.dir)), []string{"y", "z"}}} {
		for _, b := range pack.blobs {
			if _, _, err := pack.repo.SaveBlob(t.Context(), repository.DataBlob, []byte(b)); err != nil {
				t.Fatal(err)
			}
		}
		if err := pack.repo.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	file := func(r *repository.Repository) string {
		id := r.Packs()[0].String()
		return filepath.Join(to.dir, "data", id[:2], id)
	}
	remove(t, file(lost))
	flip(t, file(replaced), 20)
	m, err := copy.Mend(t.Context(), from.open(local.New(from.dir)), to.open(local.New(to.dir)), 0)
	if !errors.Is(err, repository.ErrDamaged) || !strings.Contains(err.Error(), lost.Packs()[0].Short()) || len(m.Packs) != 1 || m.Packs[0] != replaced.Packs()[0] {
		t.Errorf("%+v, %v", m, err)
	}
}

// A snapshot that cannot be read is said, is copied again, and keeps no other.
func TestUnreadableSnapshot(t *testing.T) {
	from, to := newPlace(t, "one key"), newPlace(t, "another key")
	fill(t, from)
	all := from.snapshots()
	if _, err := copy.Run(t.Context(), from.open(local.New(from.dir)), to.open(local.New(to.dir)), all[:1]); err != nil {
		t.Fatal(err)
	}
	bad := to.files("snapshots")[0]
	repo := to.open(local.New(to.dir))
	known := copy.Originals(to.snapshots())
	flipBits(t, bad)
	if missing, _, err := copy.Missing(t.Context(), repo, all); len(missing) != 2 || !errors.Is(err, repository.ErrDamaged) || !strings.Contains(err.Error(), filepath.Base(bad)) {
		t.Errorf("%d are missing, %v", len(missing), err)
	}
	if rep, err := copy.Run(t.Context(), from.open(local.New(from.dir)), repo, all); err != nil || rep.Copied != 2 {
		t.Errorf("%+v, %v", rep, err)
	}
	if removed, unread, err := copy.RemoveUnreadable(t.Context(), repo, nil, nil, 0); err != nil || len(removed) > 0 || !errors.Is(unread, repository.ErrDamaged) || !strings.Contains(unread.Error(), filepath.Base(bad)) {
		t.Errorf("what nobody knows was removed: %q, %v, %v", removed, unread, err)
	}
	if removed, unread, err := copy.RemoveUnreadable(t.Context(), repo, known, nil, 0); err != nil || unread != nil || len(removed) != 1 || removed[0].String() != filepath.Base(bad) {
		t.Errorf("removed are %q, %v, %v", removed, unread, err)
	}
	if removed, unread, err := copy.RemoveUnreadable(t.Context(), repo, known, nil, 0); err != nil || unread != nil || len(removed) > 0 {
		t.Errorf("again: %q, %v, %v", removed, unread, err)
	}
	to.restic("check", "--read-data")
}

// good makes sure that a place has that many backups, and that drydock reads all of them.
// Restic waits for minutes where it takes the copy of a blob that is gone, and reads nothing
// beside a bad index file.
func (p place) good(backups int) {
	p.t.Helper()
	repo, err := repository.Open(p.t.Context(), local.New(p.dir), []byte(p.password), repository.Options{})
	if err != nil {
		p.t.Fatal(err)
	}
	report, err := verify.Run(p.t.Context(), repo, verify.Options{Mode: verify.Full})
	if err != nil || len(report.Backups) != backups {
		p.t.Fatalf("%+v, %v", report, err)
	}
	for _, b := range report.Backups {
		if !b.Good() {
			p.t.Errorf("%+v", b)
		}
	}
}

// keeper is a server that lets nobody remove anything but locks.
type keeper struct{ backend.Backend }

func (k keeper) Remove(ctx context.Context, h backend.Handle) error {
	if h.Type == backend.LockFile {
		return k.Backend.Remove(ctx, h)
	}
	return fmt.Errorf("remove %s: %w", h, backend.ErrRefused)
}

// Where nothing can be removed, what was gone is there again all the same, the next copy
// says so again, and nothing is stored a second time.
func TestMendWhereNothingIsRemoved(t *testing.T) {
	from, to := newPlace(t, "one key"), newPlace(t, "another key")
	fill(t, from)
	if _, err := run(t, from.open(local.New(from.dir)), to.open(local.New(to.dir))); err != nil {
		t.Fatal(err)
	}
	harm["the folders are gone"](t, to)
	stored := 0
	for range 3 {
		repo, err := repository.Open(t.Context(), keeper{local.New(to.dir)}, []byte(to.password), repository.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := copy.Mend(t.Context(), from.open(local.New(from.dir)), repo, 0); !errors.Is(err, backend.ErrRefused) {
			t.Errorf("%v", err)
		}
		n := len(to.files("data")) + len(to.files("index"))
		if stored != 0 && n != stored {
			t.Errorf("%d files are stored after %d", n, stored)
		}
		stored = n
	}
	report := repaired(t, to, from, func(o *verify.Options) { o.Repair = false })
	for _, b := range report.Backups {
		if !b.Good() {
			t.Errorf("of %s is lost: %+v", b.ID.Short(), b.Damaged)
		}
	}
	if report.DamageTotal == 0 {
		t.Error("the pack that is gone is not named")
	}
}

// dying is a place whose process dies: after some changes there are no more, but to locks,
// which others remove.
type dying struct {
	backend.Backend
	left int
}

var errDead = errors.New("the process is dead")

func (d *dying) change(h backend.Handle) error {
	if h.Type == backend.LockFile {
		return nil
	}
	if d.left == 0 {
		return errDead
	}
	d.left--
	return nil
}

func (d *dying) Save(ctx context.Context, h backend.Handle, data []byte) error {
	if err := d.change(h); err != nil {
		return err
	}
	return d.Backend.Save(ctx, h, data)
}

func (d *dying) Remove(ctx context.Context, h backend.Handle) error {
	if err := d.change(h); err != nil {
		return err
	}
	return d.Backend.Remove(ctx, h)
}

// A repair that dies between any two changes has made nothing worse, and the next one
// ends it.
func TestHealDies(t *testing.T) {
	from, whole := newPlace(t, "one key"), newPlace(t, "another key")
	src := fill(t, from)
	if _, err := run(t, from.open(local.New(from.dir)), whole.open(local.New(whole.dir))); err != nil {
		t.Fatal(err)
	}
	harm["a pack and all index files"](t, whole)
	remove(t, whole.files("data")[1])
	source := from.open(local.New(from.dir))
	heal := func(be backend.Backend, p place) (*verify.Report, error) {
		repo, err := repository.Open(t.Context(), be, []byte(p.password), repository.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return verify.Run(t.Context(), repo, verify.Options{Mode: verify.Full, Repair: true, Source: func(ctx context.Context, b repository.Blob) ([]byte, error) {
			return source.LoadBlob(ctx, b.Type, b.ID, nil)
		}})
	}
	deaths := 0
	for n := 0; ; n++ {
		p := place{t, filepath.Join(t.TempDir(), "repo"), whole.password}
		if err := os.CopyFS(p.dir, os.DirFS(whole.dir)); err != nil {
			t.Fatal(err)
		}
		_, err := heal(&dying{local.New(p.dir), n}, p)
		if err != nil && !errors.Is(err, errDead) {
			t.Errorf("%d changes: %v", n, err)
		}
		if err != nil {
			deaths++
			if r, err := heal(local.New(p.dir), p); err != nil || !r.Good() {
				t.Errorf("after %d changes: %+v, %v", n, r, err)
			}
		}
		if out := p.restic("check", "--read-data"); !strings.Contains(out, "no errors were found") {
			t.Errorf("after %d changes: restic check: %s", n, out)
		}
		p.restores(src)
		if err == nil {
			break
		}
	}
	if deaths < 6 {
		t.Errorf("it died %d times only", deaths)
	}
}

// Nor does it keep anything from being looked at, copied, or found good: what cannot be
// removed is named.
func TestHealWhereNothingIsRemoved(t *testing.T) {
	for _, name := range []string{"bits of a pack", "a pack is gone", "a pack and all index files"} {
		t.Run(name, func(t *testing.T) {
			from, to := newPlace(t, "one key"), newPlace(t, "another key")
			fill(t, from)
			all := from.snapshots()
			if _, err := copy.Run(t.Context(), from.open(local.New(from.dir)), to.open(local.New(to.dir)), all[:1]); err != nil {
				t.Fatal(err)
			}
			harm[name](t, to)
			first := from.open(local.New(from.dir))
			open := func() *repository.Repository {
				repo, err := repository.Open(t.Context(), keeper{local.New(to.dir)}, []byte(to.password), repository.Options{})
				if err != nil {
					t.Fatal(err)
				}
				return repo
			}
			stored := 0
			for range 2 {
				report, err := verify.Run(t.Context(), open(), verify.Options{
					Mode: verify.Full, Repair: true,
					Source: func(ctx context.Context, b repository.Blob) ([]byte, error) {
						return first.LoadBlob(ctx, b.Type, b.ID, nil)
					},
				})
				if err != nil || len(report.Backups) != 1 || !report.Backups[0].Good() || report.Good() {
					t.Errorf("%+v, %v", report, err)
				}
				n := len(to.files("data")) + len(to.files("index"))
				if stored != 0 && n != stored {
					t.Errorf("%d files are stored after %d", n, stored)
				}
				stored = n
			}
			repo := open()
			if m, err := copy.Mend(t.Context(), first, repo, 0); m == nil {
				t.Errorf("the place cannot be worked on: %v", err)
			}
			wanted, err := retain.Wanted(t.Context(), repo, all[1:], nil, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if rep, err := copy.Run(t.Context(), first, repo, wanted); err != nil || rep.Copied != 1 {
				t.Errorf("%+v, %v", rep, err)
			}
			to.good(2)
		})
	}
}
