package verify_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/verify"
)

var (
	modelTime = flag.Duration("model-time", 8*time.Second, "how long TestModel begins new sequences")
	modelSeed = flag.Uint64("model-seed", 1, "the first seed of TestModel, and that of TestDamage")
)

// TestMain is also the process that the model kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("VERIFY_MODEL"); dir != "" {
		if err := backUpOnce(dir, os.Getenv("VERIFY_GUEST")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// backUpOnce makes the backup of a guest that was written to a file, and says when
// it begins.
func backUpOnce(dir, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var g guest
	if err := json.Unmarshal(data, &g); err != nil {
		return err
	}
	repo, err := repository.Open(context.Background(), local.New(dir), []byte(password), repository.Options{PackSize: 4 << 20, Parity: 5})
	if err != nil {
		return err
	}
	fmt.Println("begin")
	_, err = g.backUp(context.Background(), repo, "web", time.Now())
	return err
}

// full is storage that has room for some more files, and then has none. It sometimes
// keeps the file for which it says so, as the contract allows.
type full struct {
	backend.Backend
	left  atomic.Int64
	keeps bool
}

func (f *full) Save(ctx context.Context, h backend.Handle, data []byte) error {
	if f.left.Add(-1) >= 0 {
		return f.Backend.Save(ctx, h, data)
	}
	if f.keeps {
		_ = f.Backend.Save(ctx, h, data) // whatever it says, the disk is full
	}
	return fmt.Errorf("save %s: %w", h, unix.ENOSPC)
}

// model is a repository, and what is in it.
type model struct {
	t      *testing.T
	r      *rand.Rand
	place  place
	guests map[string]guest // as they are now
	backed []stored         // by time
	now    time.Time
	log    []string
	faults map[string]int // that came to pass
}

// step is one thing that happens to the repository.
type step struct {
	name string
	do   func(*model)
}

var steps = []step{
	{"backup", (*model).backup}, {"backup", (*model).backup}, {"delete", (*model).remove}, {"prune", (*model).prune},
	{"kill", (*model).kill}, {"full", (*model).full}, {"damage", (*model).damage}, {"together", (*model).together},
	{"restic", (*model).restic},
}

// TestModel does to repositories what happens to them in a long life, and compares
// them with a model all the time: every backup that the model has restores exactly,
// restic and Run agree, and damage costs the files that Run names and no others.
func TestModel(t *testing.T) {
	seed := *modelSeed
	faults := map[string]int{}
	began := time.Now()
	for ; seed == *modelSeed || time.Since(began) < *modelTime; seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { sequence(t, seed, faults) })
		if t.Failed() {
			t.Fatalf("again: go test ./internal/verify -run TestModel -model-time 0 -model-seed %d", seed)
		}
	}
	t.Logf("what came to pass: %v", faults)
}

func sequence(t *testing.T, seed uint64, faults map[string]int) {
	m := &model{
		t: t, r: rand.New(rand.NewPCG(seed, 0)), place: newPlace(t), now: noon, faults: faults,
		guests: map[string]guest{"web": {}, "mail": {}},
	}
	defer func() {
		if t.Failed() {
			t.Logf("steps: %s", strings.Join(m.log, ", "))
		}
	}()
	m.backup()
	order := slices.Clone(steps) // each once or more, in any order
	for range 4 {
		order = append(order, steps[m.r.IntN(len(steps))])
	}
	m.r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for _, s := range order {
		m.log = append(m.log, s.name)
		s.do(m)
		m.compare()
		if t.Failed() {
			return
		}
	}
	m.judged()
}

func (m *model) open(be backend.Backend) *repository.Repository {
	m.t.Helper()
	repo, err := repository.Open(m.t.Context(), be, []byte(password), repository.Options{PackSize: 4 << 20, Parity: 5})
	check(m.t, err)
	return repo
}

// change lets a day pass for one guest, and returns its name.
func (m *model) change() string {
	vm := []string{"web", "web", "mail"}[m.r.IntN(3)]
	m.guests[vm] = m.guests[vm].change(m.r)
	m.now = m.now.AddDate(0, 0, 1)
	return vm
}

func (m *model) backup() {
	vm := m.change()
	report, err := m.guests[vm].backUp(m.t.Context(), m.open(local.New(m.place.dir)), vm, m.now)
	check(m.t, err)
	if len(report.Warnings) > 0 {
		m.t.Errorf("warnings: %v", report.Warnings)
	}
	m.backed = append(m.backed, stored{report.ID, vm, m.guests[vm]})
}

// together makes two backups at the same time, as two hosts do.
func (m *model) together() {
	m.now = m.now.AddDate(0, 0, 1)
	var wg sync.WaitGroup
	var mu sync.Mutex // guards m.backed
	for _, vm := range []string{"web", "mail"} {
		g := m.guests[vm].change(m.r)
		m.guests[vm] = g
		repo := m.open(local.New(m.place.dir))
		wg.Go(func() {
			report, err := g.backUp(m.t.Context(), repo, vm, m.now)
			if err != nil {
				m.t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			m.backed = append(m.backed, stored{report.ID, vm, g})
		})
	}
	wg.Wait()
}

// restic lets restic make the backup.
func (m *model) restic() {
	vm := m.change()
	dir := m.t.TempDir()
	for name, content := range m.guests[vm] {
		path := filepath.Join(dir, name)
		check(m.t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(m.t, os.WriteFile(path, content, 0o600))
	}
	c := m.place.command(m.t, "backup", "--host", vm, ".")
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		m.t.Fatalf("restic backup: %v\n%s", err, out)
	}
	m.adopt(vm)
}

func (m *model) remove() {
	if len(m.backed) < 2 {
		return
	}
	i := m.r.IntN(len(m.backed))
	repo := m.open(local.New(m.place.dir))
	lock, err := repo.Lock(m.t.Context(), true)
	check(m.t, err)
	check(m.t, repo.RemoveSnapshot(lock.Context(), m.backed[i].id))
	check(m.t, lock.Unlock(m.t.Context()))
	m.backed = slices.Delete(m.backed, i, i+1)
}

func (m *model) prune() {
	// Our exclusive lock removes that of a process that was killed. Restic leaves
	// it to restic unlock.
	lock, err := m.open(local.New(m.place.dir)).Lock(m.t.Context(), true)
	check(m.t, err)
	check(m.t, lock.Unlock(m.t.Context()))
	if out, err := m.place.restic(m.t, "prune", "--max-unused", "0"); err != nil {
		m.t.Errorf("restic prune: %v\n%s", err, out)
	}
	if report := m.place.verified(m.t, verify.Options{Mode: verify.Quick}); report.Spare != 0 {
		m.t.Errorf("%d spare packs are left", report.Spare)
	}
}

// kill ends a process that makes a backup, at any moment of it.
func (m *model) kill() {
	vm := "web"
	m.guests[vm] = m.guests[vm].change(m.r)
	data, err := json.Marshal(m.guests[vm])
	check(m.t, err)
	file := filepath.Join(m.t.TempDir(), "guest")
	check(m.t, os.WriteFile(file, data, 0o600))
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "VERIFY_MODEL="+m.place.dir, "VERIFY_GUEST="+file)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	check(m.t, err)
	check(m.t, c.Start())
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		m.t.Errorf("the process that is to be killed: %v", err)
	}
	time.Sleep(time.Duration(m.r.IntN(500)) * time.Millisecond) // 200 of them for its lock
	_ = c.Process.Kill()
	_ = c.Wait() // it was killed, or was faster
	if !m.adopt(vm) {
		m.faults["kill"]++
	}
}

// adopt looks for a backup that the model does not have. One that was cut short may
// be there all the same: then it is whole.
func (m *model) adopt(vm string) (made bool) {
	all, err := m.open(local.New(m.place.dir)).Snapshots(m.t.Context())
	check(m.t, err)
	for _, s := range all {
		if !slices.ContainsFunc(m.backed, func(b stored) bool { return b.id == s.ID }) {
			m.backed = append(m.backed, stored{s.ID, vm, m.guests[vm]})
			made = true
		}
	}
	return made
}

// full makes a backup to storage that becomes full.
func (m *model) full() {
	vm := m.change()
	be := &full{Backend: local.New(m.place.dir), keeps: m.r.IntN(3) == 0}
	be.left.Store(int64(m.r.IntN(6)))
	_, err := m.guests[vm].backUp(m.t.Context(), m.open(be), vm, m.now)
	if err != nil && !errors.Is(err, unix.ENOSPC) {
		m.t.Errorf("on a full disk: %v", err)
	}
	if !m.adopt(vm) {
		m.faults["full"]++
	}
}

// damage hits a copy of the repository, so that the life of this one goes on.
func (m *model) damage() {
	folder := []string{"data", "data", "index", "snapshots"}[m.r.IntN(4)]
	names := slices.Sorted(maps.Keys(damages))
	name := names[m.r.IntN(len(names))]
	p := m.place.copied(m.t)
	files := p.files(m.t, folder)
	if len(files) < 2 {
		return
	}
	m.log[len(m.log)-1] = folder + " " + name
	damages[name](m.t, m.r, files)
	m.faults[name]++
	judge(m.t, p, m.backed, false)
	check(m.t, os.RemoveAll(p.dir))
}

// compare makes sure that what the model has is there, and nothing else.
func (m *model) compare() {
	m.t.Helper()
	repo := m.open(local.New(m.place.dir))
	all, err := repo.Snapshots(m.t.Context())
	check(m.t, err)
	if len(all) != len(m.backed) {
		m.t.Errorf("%d snapshots, and the model has %d", len(all), len(m.backed))
	}
	for _, b := range m.backed {
		if lost := b.files.lostOf(m.t, repo, b.id); len(lost) > 0 {
			m.t.Errorf("backup %s of %s has lost %q", b.id.Short(), b.vm, lost)
		}
	}
}

// judged lets restic and Run look at the end of a sequence.
func (m *model) judged() {
	judge(m.t, m.place, m.backed, false)
	if out, err := m.place.restic(m.t, "check", "--read-data"); err != nil {
		m.t.Errorf("restic check: %v\n%s", err, out)
	}
	out, err := m.place.restic(m.t, "snapshots", "--json")
	check(m.t, err)
	var listed []struct{ ID string }
	check(m.t, json.Unmarshal([]byte(out), &listed))
	if len(listed) != len(m.backed) {
		m.t.Errorf("restic lists %d snapshots, and the model has %d", len(listed), len(m.backed))
	}
	b := m.backed[m.r.IntN(len(m.backed))]
	to := filepath.Join(m.t.TempDir(), "restored")
	if out, err := m.place.restic(m.t, "restore", b.id.String(), "--target", to); err != nil {
		m.t.Fatalf("restic restore: %v\n%s", err, out)
	}
	for name, want := range b.files {
		if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != string(want) {
			m.t.Errorf("restic restores %s with %d bytes, want %d, %v", name, len(got), len(want), err)
		}
	}
}
