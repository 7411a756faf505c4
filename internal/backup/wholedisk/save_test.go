package wholedisk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/backup/wholedisk"
	"github.com/drydock-vm/drydock/internal/repository"
)

// TestScattered: a disk with a twenty-fifth of it changed, in pieces of 1 MiB at
// any page, stores little more than what has changed. The real restic restores
// both nights.
func TestScattered(t *testing.T) {
	const size, pieces = 256 << 20, 10
	r, g := newRepo(t), newGuest(size)
	noise(g.data, 1)
	src := g.source("")
	src.Unused = nil
	_, first := r.night(t, 1, src)
	if first.Stored < size || first.Stored > size+size/50 {
		t.Errorf("the first night stored %d bytes of %d", first.Stored, size)
	}
	before, night1 := r.size(t), bytes.Clone(g.data)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range pieces { // one in each tenth of the disk
		off := i*size/pieces + rng.IntN((size/pieces-(1<<20))/block)*block
		noise(g.data[off:off+1<<20], uint64(100+i))
	}
	rep, second := r.night(t, 2, src)
	took := r.size(t) - before
	t.Logf("%d MiB changed of %d, %.1f MiB stored", pieces, size>>20, float64(took)/(1<<20))
	if limit := int64(45 << 20 * pieces / 40); took > limit || second.Stored > limit {
		t.Errorf("%d bytes were stored, at most %d are wanted", took, limit)
	}
	if out := r.Restic(t, "check", "--read-data"); !strings.Contains(out, "no errors were found") {
		t.Errorf("restic check: %s", out)
	}
	dir := t.TempDir()
	r.Restic(t, "restore", rep.ID.String(), "--target", dir)
	if got, err := os.ReadFile(filepath.Join(dir, "disks", "data.raw")); err != nil || !bytes.Equal(got, g.data) {
		t.Errorf("what restic restores of the second night differs: %d bytes, %v", len(got), err)
	}
	if got := r.Restic(t, "dump", rep.Parent.String(), "/disks/data.raw"); got != string(night1) {
		t.Errorf("what restic dumps of the first night differs: %d bytes", len(got))
	}
	third, again := r.night(t, 3, src)
	if third.Tree != rep.Tree || again.Stored > 10<<10 {
		t.Errorf("a night without a change made another tree, and stored %d bytes", again.Stored)
	}
}

// TestNights plays random nights: writes, files that are deleted, and undeleted
// without a write, bitmaps that are lost or refused, damage, and disks that grow.
// Whatever happens, what the guest uses is in each backup as it was.
func TestNights(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { playNights(t, seed) })
	}
}

func playNights(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	r, g := newRepo(t), newGuest(3<<20+rng.IntN(20)*block+512)
	for b := range g.holes {
		g.holes[b] = true
	}
	used, last := 0, repository.ID{}
	for night := range 12 {
		name := fmt.Sprintf("drydock-%d", night)
		// Few segments are touched in a night but the first, so that there is
		// something to take from the one before.
		for range 200 / (1 + 20*min(night, 1)) {
			b := rng.IntN(len(g.unused))
			switch rng.IntN(3) {
			case 0:
				p := g.data[b*block : min((b+1)*block, len(g.data))]
				noise(p, rng.Uint64())
				g.write(b, p)
				g.unused[b] = false
			case 1: // deleted, and something beside it written
				g.unused[b] = true
				g.write(b&^1, g.data[b&^1*block:][:block])
			case 2: // undeleted
				if i := slices.Index(g.unused[b:], true); i >= 0 {
					g.unused[b+i] = false
				}
			}
		}
		clear(g.broken)
		g.refused = nil
		switch rng.IntN(6) {
		case 0:
			g.broken[rng.IntN(len(g.unused))] = true
		case 1:
			delete(g.dirty, fmt.Sprintf("drydock-%d", night-1))
		case 2:
			g.refused = errors.New("in use")
		case 3:
			if rng.IntN(3) == 0 {
				g.data = append(g.data, make([]byte, 5*block)...)
				g.unused = append(g.unused, make([]bool, 5)...)
				g.holes = append(g.holes, []bool{true, true, true, true, true}...)
			}
		}
		g.dirty[name] = map[int]bool{}
		rep, one := r.night(t, night, g.source(name))
		if one.Bitmap != "" {
			used++
		}
		if (one.Bitmap == "") == (one.Whole == "") {
			t.Errorf("night %d: bitmap %q, and whole: %q", night, one.Bitmap, one.Whole)
		}
		checkNight(t, g, one.DamagedTotal, r.read(t, rep.ID))
		last = rep.ID
	}
	if got := r.Restic(t, "dump", last.String(), "/disks/data.raw"); got != string(r.read(t, last)) {
		t.Error("restic reads another disk")
	}
	if used < 3 {
		t.Errorf("a bitmap was used in %d nights only", used)
	}
}

// checkNight compares what restic has of a night with the disk.
func checkNight(t *testing.T, g *guest, damaged int64, got []byte) {
	t.Helper()
	if len(got) != len(g.data) {
		t.Fatalf("the image has %d bytes, the disk %d", len(got), len(g.data))
	}
	var lost int64
	for b, unused := range g.unused {
		start, end := b*block, min((b+1)*block, len(g.data))
		want := g.data[start:end]
		if g.holes[b] {
			want = make([]byte, end-start)
		}
		if !unused && !bytes.Equal(got[start:end], want) {
			if g.broken[b] || damaged > 0 && !slices.ContainsFunc(got[start:end], func(b byte) bool { return b != 0 }) {
				lost += int64(end - start)
				continue
			}
			t.Errorf("block %d is in use and differs", b)
		}
	}
	if lost > damaged {
		t.Errorf("%d bytes are lost, and the report says %d", lost, damaged)
	}
}

// TestSkips: what is not in use is neither read nor stored, and is when it is to be
// kept; with a bitmap nothing but what has changed is read.
func TestSkips(t *testing.T) {
	r, g := newRepo(t), newGuest(8<<20)
	noise(g.data, 3)
	half := len(g.unused) / 2
	for b := range half {
		g.unused[b] = true
	}
	g.dirty["one"] = map[int]bool{}
	_, first := r.night(t, 1, g.source("one"))
	if first.Read != 4<<20 || g.reads != 4<<20 || first.Free+first.Swap != 4<<20 || first.Swap == 0 || first.Stored > 4<<20+100<<10 {
		t.Errorf("%d bytes were read: %+v", g.reads, first)
	}
	g.dirty["two"] = map[int]bool{}
	g.write(half+100, bytes.Repeat([]byte("new "), block/4))
	g.reads = 0
	_, second := r.night(t, 2, g.source("two"))
	if second.Bitmap != "one" || second.Read != 64<<10 || g.reads != 64<<10 || second.Unchanged != 8<<20-64<<10 {
		t.Errorf("with a bitmap %d bytes were read: %+v", g.reads, second)
	}
	keep := g.source("")
	keep.Unused = nil
	rep, third := r.night(t, 3, keep)
	if third.Bitmap != "two" || third.Read != 4<<20+64<<10 || third.Unchanged != 4<<20-64<<10 {
		t.Errorf("when free space is kept: %+v", third)
	}
	if got := r.Restic(t, "dump", rep.ID.String(), "/disks/data.raw"); got != string(g.data) {
		t.Error("the backup that keeps free space differs from the disk")
	}
}

// TestLies: a last backup that is not what it says costs a full read, and a word.
func TestLies(t *testing.T) {
	for name, lie := range map[string]string{
		"no JSON":     "{",
		"version":     `{"version":2,"size":8388608,"segment":65536}`,
		"size":        `{"version":1,"size":8388609,"segment":65536}`,
		"segment":     `{"version":1,"size":8388608,"segment":1}`,
		"fewer":       `{"version":1,"size":8388608,"segment":131072}`,
		"left out":    `{"version":1,"size":8388608,"segment":65536,"left_out":"/////w=="}`,
		"not on disk": `{"version":1,"size":-1,"segment":65536}`,
	} {
		t.Run(name, func(t *testing.T) {
			r, g := newRepo(t), newGuest(8<<20)
			noise(g.data, 5)
			_, err := backup.Run(t.Context(), r.Repository, nil, backup.Options{
				VM: "db", Time: time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC),
				Objects: func(ctx context.Context, parent *repository.Snapshot) ([]backup.Object, error) {
					list, _, err := wholedisk.Save(ctx, r.Repository, parent, g.source("old"), wholedisk.Options{Time: time.Now()})
					if err != nil {
						return nil, err
					}
					id, _, err := r.SaveBlob(ctx, repository.DataBlob, []byte(lie))
					list[1].Node.Content, list[1].Node.Size = []repository.ID{id}, uint64(len(lie))
					return list, err
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			g.dirty["old"] = map[int]bool{} // it would say that nothing has changed
			noise(g.data, 6)
			rep, one := r.night(t, 1, g.source(""))
			if len(one.Warnings) != 1 || one.Whole == "" || one.Unchanged != 0 {
				t.Errorf("%+v", one)
			}
			if !bytes.Equal(r.read(t, rep.ID), g.data) {
				t.Error("the backup differs from the disk")
			}
		})
	}
}
