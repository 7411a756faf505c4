package verify_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/verify"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// stored is a backup that was made, and what was in the guest.
type stored struct {
	id    repository.ID
	vm    string
	files guest
}

// harbour is a repository with several backups of two VMs.
func harbour(t *testing.T, r *rand.Rand) (place, []stored) {
	t.Helper()
	p := newPlace(t)
	var all []stored
	web, mail := guest{}.change(r).change(r), guest{}.change(r)
	for i := range 4 {
		repo, err := p.open(t, repository.Options{PackSize: 4 << 20})
		check(t, err)
		g, vm := web, "web"
		if i == 2 {
			g, vm = mail, "mail"
		}
		report, err := g.backUp(t.Context(), repo, vm, noon.AddDate(0, 0, i))
		check(t, err)
		all = append(all, stored{report.ID, vm, g})
		web = web.change(r)
	}
	return p, all
}

// edit writes a file of the repository anew.
func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	check(t, err)
	check(t, os.Chmod(path, 0o600))
	check(t, os.WriteFile(path, change(data), 0o600))
}

// damages are what storage does to files.
var damages = map[string]func(t *testing.T, r *rand.Rand, files []string){
	"flipped": func(t *testing.T, r *rand.Rand, files []string) {
		edit(t, files[r.IntN(len(files))], func(d []byte) []byte { d[r.IntN(len(d))] ^= 1 << r.IntN(8); return d })
	},
	"truncated": func(t *testing.T, r *rand.Rand, files []string) {
		edit(t, files[r.IntN(len(files))], func(d []byte) []byte { return d[:r.IntN(len(d))] })
	},
	"longer": func(t *testing.T, r *rand.Rand, files []string) {
		edit(t, files[r.IntN(len(files))], func(d []byte) []byte { return append(d, d[:1+r.IntN(len(d))]...) })
	},
	"missing": func(t *testing.T, r *rand.Rand, files []string) { check(t, os.Remove(files[r.IntN(len(files))])) },
	"swapped": func(t *testing.T, r *rand.Rand, files []string) {
		a, b := files[0], files[1+r.IntN(len(files)-1)]
		check(t, errors.Join(os.Rename(a, a+"x"), os.Rename(b, a), os.Rename(a+"x", b)))
	},
	"duplicated": func(t *testing.T, r *rand.Rand, files []string) {
		a, b := files[0], files[1+r.IntN(len(files)-1)]
		edit(t, b, func([]byte) []byte { d, err := os.ReadFile(a); check(t, err); return d })
	},
}

// Whatever storage does to a repository: Run finds it if restic does, and names
// exactly the files that do not come back.
func TestDamage(t *testing.T) {
	seed := *modelSeed
	whole, backups := harbour(t, rand.New(rand.NewPCG(seed, 0)))
	if r := whole.verified(t, verify.Options{Mode: verify.Full}); !r.Good() || len(r.Backups) != len(backups) || r.PacksRead == 0 {
		t.Fatalf("the undamaged repository: %+v", r)
	}
	n := uint64(0)
	for _, folder := range []string{"data", "index", "snapshots"} {
		for _, name := range slices.Sorted(maps.Keys(damages)) {
			n++
			r := rand.New(rand.NewPCG(seed, n))
			t.Run(folder+" "+name, func(t *testing.T) {
				t.Parallel()
				p := whole.copied(t)
				damages[name](t, r, p.files(t, folder))
				judge(t, p, backups, folder+name != "snapshotsmissing")
			})
		}
	}
}

// checked has restic read the whole repository. What it cannot read it tries again,
// for minutes: it is not waited for after it has said so.
func (p place) checked(t *testing.T) (string, error) {
	t.Helper()
	c := p.command(t, "check", "--read-data")
	said := &printed{until: "returned error, retrying", stop: c.Cancel}
	c.Stdout, c.Stderr = said, said
	err := c.Run()
	if c.ProcessState == nil {
		t.Fatalf("run restic: %v", err)
	}
	return said.String(), err
}

// printed is what a program has printed, which is stopped when it prints a certain
// text.
type printed struct {
	strings.Builder
	until string
	stop  func() error
}

func (p *printed) Write(b []byte) (int, error) {
	n, err := p.Builder.Write(b)
	if p.stop != nil && strings.Contains(p.String(), p.until) {
		err, p.stop = errors.Join(err, p.stop()), nil
	}
	return n, err
}

// judge compares what Run says with what restic says and with what is restored.
func judge(t *testing.T, p place, backups []stored, damaged bool) {
	t.Helper()
	report := p.verified(t, verify.Options{Mode: verify.Full})
	out, err := p.checked(t)
	if damaged && err == nil {
		t.Errorf("restic finds nothing: %s", out)
	}
	if report.Good() != (err == nil) {
		t.Errorf("Run says good: %v, %v; restic says %v\n%s", report.Good(), report.Damage, err, out)
	}
	repo, err := p.open(t, repository.Options{})
	check(t, err)
	for _, b := range backups {
		i := slices.IndexFunc(report.Backups, func(r *verify.Backup) bool { return r.ID == b.id })
		lost := b.files.lostOf(t, repo, b.id)
		if i < 0 {
			if len(lost) != len(b.files) {
				t.Errorf("backup %s is not in the report", b.id.Short())
			}
			continue
		}
		r := report.Backups[i]
		if named := b.files.named(r); !slices.Equal(named, lost) || r.Good() != (len(lost) == 0) || r.VM != b.vm {
			t.Errorf("backup %s of %s: lost %q, named %q", r.ID.Short(), r.VM, lost, named)
		}
	}
}

// What the keys or the config file are hit by, nobody can look at.
func TestDamagedKey(t *testing.T) {
	whole, _ := harbour(t, rand.New(rand.NewPCG(1, 1)))
	for _, file := range []string{"config", "keys"} {
		p := whole.copied(t)
		path := filepath.Join(p.dir, file)
		if file == "keys" {
			path = p.files(t, file)[0]
		}
		edit(t, path, func(d []byte) []byte { d[len(d)/2] ^= 1; return d })
		if _, err := p.open(t, repository.Options{}); !errors.Is(err, repository.ErrDamaged) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
		if out, err := p.restic(t, "check"); err == nil {
			t.Errorf("%s: restic finds nothing: %s", file, out)
		}
	}
}

// A lost pack is found without reading any, and so is a changed header.
func TestQuick(t *testing.T) {
	whole, _ := harbour(t, rand.New(rand.NewPCG(2, 1)))
	for name, damage := range map[string]func(string){
		"missing": func(path string) { check(t, os.Remove(path)) },
		"header":  func(path string) { edit(t, path, func(d []byte) []byte { d[len(d)-10] ^= 1; return d }) },
		"short":   func(path string) { edit(t, path, func(d []byte) []byte { return d[1:] }) },
	} {
		for i := range whole.files(t, "data") {
			p := whole.copied(t)
			damage(p.files(t, "data")[i])
			if r := p.verified(t, verify.Options{Mode: verify.Quick}); r.DamageTotal == 0 {
				t.Errorf("pack %d %s: not found", i, name)
			}
			if left := p.files(t, "locks"); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		}
	}
}

// A blob that another pack holds as well is not lost with one of them; the pack is
// damage all the same.
func TestSecondCopy(t *testing.T) {
	p := newPlace(t)
	g := guest{"a/file": []byte(strings.Repeat("x", 100_000))}
	var repos []*repository.Repository
	for range 2 { // two that do not know of each other
		repo, err := p.open(t, repository.Options{})
		check(t, err)
		check(t, repo.LoadIndex(t.Context()))
		_, _, err = repo.SaveBlob(t.Context(), repository.DataBlob, g["a/file"])
		check(t, err)
		repos = append(repos, repo)
	}
	for _, repo := range repos {
		check(t, repo.Flush(t.Context()))
	}
	packs := p.files(t, "data")
	_, err := g.backUp(t.Context(), repos[0], "web", noon)
	check(t, err)
	edit(t, packs[0], func(d []byte) []byte { d[20] ^= 1; return d })
	r := p.verified(t, verify.Options{Mode: verify.Full})
	if r.DamageTotal != 1 || len(r.Backups) != 1 || !r.Backups[0].Good() {
		t.Errorf("%+v", r)
	}
	edit(t, packs[1], func(d []byte) []byte { d[20] ^= 1; return d })
	r = p.verified(t, verify.Options{Mode: verify.Full})
	if r.DamageTotal != 2 || len(r.Backups[0].Damaged) != 1 || string(r.Backups[0].Damaged[0].Path) != "/a/file" {
		t.Errorf("%+v", r)
	}
}

// Only the packs of the VMs that are asked for are looked at.
func TestWanted(t *testing.T) {
	p, _ := harbour(t, rand.New(rand.NewPCG(3, 1)))
	all := p.verified(t, verify.Options{Mode: verify.Full})
	mail := p.verified(t, verify.Options{Mode: verify.Full, Wanted: func(s *repository.Snapshot) bool { return s.Hostname == "mail" }})
	if !mail.Good() || len(mail.Backups) != 1 || mail.PacksRead == 0 || mail.PacksRead >= all.PacksRead {
		t.Errorf("of %d packs: %+v", all.PacksRead, mail)
	}
}
