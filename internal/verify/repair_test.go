package verify_test

import (
	"bytes"
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

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/verify"
)

var parity = repository.Options{Parity: 5}

// mended runs a verification with parity.
func (p place) mended(t *testing.T, o verify.Options) *verify.Report {
	t.Helper()
	repo, err := p.open(t, parity)
	check(t, err)
	report, err := verify.Run(t.Context(), repo, o)
	check(t, err)
	return report
}

// protected is a repository with parity, and the backup in it.
func protected(t *testing.T) (place, stored) {
	t.Helper()
	p := newPlace(t)
	r := rand.NewChaCha8([32]byte{1})
	big := make([]byte, 6<<20)
	_, _ = r.Read(big) // never fails
	g := guest{"big": big, "dir/small": []byte("a letter")}
	repo, err := p.open(t, parity)
	check(t, err)
	report, err := g.backUp(t.Context(), repo, "web", noon)
	check(t, err)
	return p, stored{report.ID, "web", g}
}

// restored makes sure that all is there, for restic and for us.
func (p place) restored(t *testing.T, b stored) {
	t.Helper()
	repo, err := p.open(t, repository.Options{})
	check(t, err)
	check(t, repo.LoadIndex(t.Context()))
	if lost := b.files.lostOf(t, repo, b.id); len(lost) > 0 {
		t.Errorf("lost %q", lost)
	}
	if out, err := p.restic(t, "check", "--read-data"); err != nil || !strings.Contains(out, "no errors were found") {
		t.Errorf("restic check: %v\n%s", err, out)
	}
}

// rot is what storage does to a pack, and its parity can undo.
var rot = map[string]func(r *rand.Rand, d []byte) []byte{
	"bits": func(r *rand.Rand, d []byte) []byte {
		for range 1 + len(d)/(256<<10) {
			d[r.IntN(len(d))] ^= 1 << r.IntN(8)
		}
		return d
	},
	"run": func(r *rand.Rand, d []byte) []byte {
		n := min(64<<10, len(d)/25) &^ 4095
		clear(d[r.IntN(len(d)-n+1)&^4095:][:max(n, 1)])
		return d
	},
	"truncated": func(_ *rand.Rand, d []byte) []byte { return d[:len(d)-max(1, min(64<<10, len(d)/25))] },
	"header":    func(_ *rand.Rand, d []byte) []byte { clear(d[len(d)-min(len(d), 1024):]); return d },
	"longer":    func(_ *rand.Rand, d []byte) []byte { return append(d, "more"...) },
}

// All packs are damaged, those of trees too, and come back.
func TestRepair(t *testing.T) {
	whole, b := protected(t)
	for name, damage := range rot {
		t.Run(name, func(t *testing.T) {
			p := whole.copied(t)
			r := rand.New(rand.NewPCG(*modelSeed, uint64(len(name))))
			packs := p.files(t, "data")
			good := map[string][]byte{}
			for _, path := range packs {
				edit(t, path, func(d []byte) []byte { good[path] = bytes.Clone(d); return damage(r, d) })
			}
			if r := p.mended(t, verify.Options{Mode: verify.Full}); r.Good() || r.DamageTotal != len(packs) || !strings.Contains(fmt.Sprint(r.Damage), "can be repaired: drydock verify --repair") {
				t.Errorf("before: %+v", r)
			}
			if r := p.mended(t, verify.Options{Mode: verify.Full, Repair: true}); !r.Good() || len(r.Repaired) != len(packs) {
				t.Errorf("repaired %d of %d: %v", len(r.Repaired), len(packs), r.Damage)
			}
			for path, want := range good {
				if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s is another pack: %v", path, err)
				}
			}
			p.restored(t, b)
		})
	}
}

// What is damaged beyond the parity, or is gone, stays as it is, and is said.
func TestBeyondRepair(t *testing.T) {
	whole, _ := protected(t)
	for name, c := range map[string]struct {
		damage func(t *testing.T, p place, pack string)
		want   string
	}{
		"a tenth": {func(t *testing.T, _ place, pack string) {
			edit(t, pack, func(d []byte) []byte { clear(d[:len(d)/10]); return d })
		}, "it cannot be repaired: damaged: more is damaged than the parity can bring back: stripe"},
		"no parity": {func(t *testing.T, p place, pack string) {
			check(t, os.RemoveAll(filepath.Join(p.dir, "ecc")))
			edit(t, pack, func(d []byte) []byte { d[9] ^= 1; return d })
		}, "another hash"},
		"parity of another pack": {func(t *testing.T, p place, pack string) {
			all := p.files(t, "ecc")
			other, err := os.ReadFile(all[0])
			check(t, err)
			for _, path := range all[1:] {
				edit(t, path, func([]byte) []byte { return other })
			}
			edit(t, all[0], func(d []byte) []byte { return d[:10] })
			edit(t, pack, func(d []byte) []byte { d[9] ^= 1; return d })
		}, "it cannot be repaired: damaged: "},
		"gone": {func(t *testing.T, _ place, pack string) { check(t, os.Remove(pack)) }, "not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			p := whole.copied(t)
			pack := ""
			for _, path := range p.files(t, "data") {
				if info, err := os.Stat(path); err == nil && info.Size() > 1<<20 {
					pack = path
				}
			}
			c.damage(t, p, pack)
			before, _ := os.ReadFile(pack) // it may be gone
			r := p.mended(t, verify.Options{Mode: verify.Full, Repair: true})
			if r.Good() || len(r.Repaired) != 0 || !strings.Contains(fmt.Sprint(r.Damage), c.want) || strings.Contains(fmt.Sprint(r.Damage), "can be repaired") {
				t.Errorf("repaired %d: %v", len(r.Repaired), r.Damage)
			}
			if after, _ := os.ReadFile(pack); !bytes.Equal(before, after) {
				t.Error("the pack was changed")
			}
		})
	}
}

// Packs of restic's, and those from before there was parity, get theirs when they
// are read; parity that rots, or is of another percentage, is made anew; that of
// packs that are gone goes.
func TestParityKept(t *testing.T) {
	p, b := protected(t)
	src := t.TempDir()
	check(t, os.WriteFile(filepath.Join(src, "theirs"), bytes.Repeat([]byte("restic's own "), 1000), 0o600))
	if out, err := p.restic(t, "backup", "--host", "theirs", src); err != nil {
		t.Fatalf("restic backup: %v\n%s", err, out)
	}
	covered := func(when string) {
		t.Helper()
		var packs, sidecars []string
		for _, f := range p.files(t, "data") {
			packs = append(packs, filepath.Base(f))
		}
		for _, f := range p.files(t, "ecc") {
			sidecars = append(sidecars, filepath.Base(f))
		}
		if len(packs) == 0 || fmt.Sprint(packs) != fmt.Sprint(sidecars) {
			t.Errorf("%s: packs %v, parity of %v", when, packs, sidecars)
		}
	}
	if len(p.files(t, "data")) == len(p.files(t, "ecc")) {
		t.Error("restic has made parity")
	}
	if r := p.mended(t, verify.Options{Mode: verify.Quick}); !r.Good() || len(p.files(t, "ecc")) == len(p.files(t, "data")) {
		t.Error("quick reads no packs, and has made parity")
	}
	p.mended(t, verify.Options{Mode: verify.Full})
	covered("after full")
	rotten := p.files(t, "ecc")[0]
	want, err := os.ReadFile(rotten)
	check(t, err)
	edit(t, rotten, func(d []byte) []byte { d[len(d)/2] ^= 1; return d })
	p.mended(t, verify.Options{Mode: verify.Full})
	if got, err := os.ReadFile(rotten); err != nil || !bytes.Equal(got, want) {
		t.Errorf("parity that rotted was not made anew: %v", err)
	}
	if out, err := p.restic(t, "forget", "--prune", "--max-unused", "0", "latest"); err != nil {
		t.Fatalf("restic forget: %v\n%s", err, out)
	}
	p.mended(t, verify.Options{Mode: verify.Quick})
	covered("after restic prune")
	p.restored(t, b)

	to := place{filepath.Join(t.TempDir(), "copy"), p.keyFile}
	for _, args := range [][]string{{"init"}, {"copy", "--from-repo", p.dir, "--from-password-file", p.keyFile}, {"check", "--read-data"}} {
		if out, err := to.restic(t, args...); err != nil {
			t.Errorf("restic %v: %v\n%s", args, err, out)
		}
	}
}

// A pack that is missed keeps its parity.
func TestParityOfMissedPack(t *testing.T) {
	p, _ := protected(t)
	pack := p.files(t, "data")[0]
	check(t, os.Rename(pack, pack+".away"))
	before := len(p.files(t, "ecc"))
	if r := p.mended(t, verify.Options{Mode: verify.Full}); r.Good() || len(p.files(t, "ecc")) != before {
		t.Errorf("parity of %d packs, were %d", len(p.files(t, "ecc")), before)
	}
}

// A process that is killed while it repairs leaves the damaged pack or the good one.
func TestKilledRepair(t *testing.T) {
	if dir := os.Getenv("VERIFY_REPAIR"); dir != "" {
		fmt.Println("begin")
		place{dir: dir}.mended(t, verify.Options{Mode: verify.Full, Repair: true})
		return
	}
	p, b := protected(t)
	damaged, good := map[string]bool{}, map[string]bool{}
	hit := func() {
		for _, path := range p.files(t, "data") {
			edit(t, path, func(d []byte) []byte {
				if !backend.ValidName(filepath.Base(path)) || repository.Hash(d).String() != filepath.Base(path) {
					return d // still damaged
				}
				good[repository.Hash(d).String()] = true
				d[len(d)/2] ^= 1
				damaged[repository.Hash(d).String()] = true
				return d
			})
		}
	}
	repaired := 0
	for i := range 12 {
		hit()
		c := exec.Command(os.Args[0], "-test.run=^TestKilledRepair$")
		c.Env = append(os.Environ(), "VERIFY_REPAIR="+p.dir)
		out, err := c.StdoutPipe()
		check(t, err)
		check(t, c.Start())
		_, err = out.Read(make([]byte, 5))
		check(t, err)
		time.Sleep(time.Duration(200+20*i) * time.Millisecond) // 200 of them for its lock
		_ = c.Process.Kill()
		_ = c.Wait() // it was killed, or was faster
		for _, path := range p.files(t, "data") {
			d, err := os.ReadFile(path)
			check(t, err)
			switch sum := repository.Hash(d).String(); {
			case sum == filepath.Base(path):
				repaired++
			case !damaged[sum]:
				t.Errorf("round %d: %s is neither what it was nor what it should be", i, path)
			}
		}
	}
	if repaired == 0 || len(good) < 2 {
		t.Errorf("%d packs were repaired, of %d", repaired, len(good))
	}
	lock, err := p.unlocked(t)
	check(t, errors.Join(err, lock))
	if r := p.mended(t, verify.Options{Mode: verify.Full, Repair: true}); !r.Good() {
		t.Errorf("in the end: %v", r.Damage)
	}
	p.restored(t, b)
}

// unlocked removes the locks of processes that were killed.
func (p place) unlocked(t *testing.T) (unlock, err error) {
	t.Helper()
	repo, err := p.open(t, parity)
	if err != nil {
		return nil, err
	}
	lock, err := repo.Lock(t.Context(), true)
	if err != nil {
		return nil, err
	}
	return lock.Unlock(t.Context()), nil
}

// Packs that no index names are those of somebody who is storing them, while there is
// another lock: a repair leaves them alone, and verifies the rest.
func TestRepairWhileOthersWrite(t *testing.T) {
	p, b := protected(t)
	writer, err := p.open(t, parity)
	check(t, err)
	lock, err := writer.Lock(t.Context(), false)
	check(t, err)
	check(t, writer.LoadIndex(t.Context()))
	before := p.files(t, "index")
	_, _, err = writer.SaveBlob(t.Context(), repository.DataBlob, []byte("of a backup that goes on"))
	check(t, err)
	check(t, writer.Flush(t.Context()))
	written := 0
	for _, path := range p.files(t, "index") {
		if !slices.Contains(before, path) {
			check(t, os.Remove(path)) // as if it were not written yet
			written++
		}
	}
	if written != 1 {
		t.Fatalf("%d index files were written", written)
	}
	if r := p.mended(t, verify.Options{Mode: verify.Full, Repair: true}); !r.Good() || len(r.Indexed) > 0 {
		t.Errorf("%+v", r)
	}
	check(t, lock.Unlock(t.Context()))
	if r := p.mended(t, verify.Options{Mode: verify.Full, Repair: true}); !r.Good() || len(r.Indexed) != 1 {
		t.Errorf("alone: %+v", r)
	}
	p.restored(t, b)
}
