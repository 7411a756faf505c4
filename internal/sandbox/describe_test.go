package sandbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// asker looks at files, and has those described that are asked about, but for those
// that fail.
type asker struct {
	*nodeCache
	fail    func(ino uint64) bool
	pending []*description
	asked   []int // how many files at a time
	waited  int   // how often nothing was known
}

func newAsker(fail func(ino uint64) bool) *asker {
	a := &asker{nodeCache: &nodeCache{nodes: make(map[uint64]node)}, fail: fail}
	a.ask = func(k, _ *description) error {
		a.pending, a.asked = append(a.pending, k), append(a.asked, len(k.files))
		return nil
	}
	return a
}

func none(uint64) bool { return false }

// look looks at a file.
func (a *asker) look(t *testing.T, ino uint64) *wire.Entry {
	t.Helper()
	e, k, err := a.want(ino)
	if err != nil || k == nil {
		t.Fatalf("file %d: %v, %v", ino, k, err)
	}
	if e == nil {
		a.waited++
	}
	for _, k := range a.pending {
		list := make([]wire.Entry, len(k.files))
		for i, index := range k.files {
			list[i].Ino = k.in.files[index].ino
			if !a.fail(list[i].Ino) {
				list[i].Inode = &disk.Inode{Ino: list[i].Ino}
			}
		}
		a.addDescription(k, list, 1<<10)
	}
	a.pending = nil
	e = a.known(ino)
	if a.fail(ino) != (e == nil) || e != nil && e.Inode.Ino != ino {
		t.Fatalf("file %d is %+v", ino, e)
	}
	return e
}

// namesOf lists a directory of so many files, and returns their inodes in the order of
// their names, which is not that of the disk.
func namesOf(a *asker, dir, count int) []uint64 {
	l := new(nameListing)
	var inos []uint64
	order := rand.New(rand.NewPCG(1, 2)).Perm(count)
	for start := 0; start < count; start += 1000 {
		p := &wire.DirPage{Last: start+1000 >= count}
		for i := start; i < min(start+1000, count); i++ {
			p.Entries = append(p.Entries, wire.Entry{DirEntry: disk.DirEntry{Name: fmt.Appendf(nil, "%06d", order[i]), Ino: uint64(dir<<20 + i + 1)}})
		}
		a.addNames(l, p)
	}
	inos = make([]uint64, count)
	for i, place := range order {
		inos[place] = uint64(dir<<20 + i + 1)
	}
	return inos
}

// Who goes through the files of a directory in an order has them described in few
// answers, and all but the first of those come ahead of him.
func TestDescribedInOrder(t *testing.T) {
	byName := namesOf(newAsker(none), 1, 5000)
	for name, inos := range map[string][]uint64{"names": byName, "disk": slices.Sorted(slices.Values(byName))} {
		t.Run(name, func(t *testing.T) {
			a := newAsker(none)
			namesOf(a, 1, 5000)
			for _, ino := range inos {
				a.look(t, ino)
			}
			if len(a.asked) > 20 || a.waited > 4 {
				t.Errorf("5000 files were asked about in %v, %d times not ahead", a.asked, a.waited)
			}
		})
	}
}

// Who looks at files here and there causes little more to be read than he wants.
func TestDescribedInNoOrder(t *testing.T) {
	a := newAsker(none)
	inos := namesOf(a, 1, 20_000)
	for i := range 200 {
		a.look(t, inos[i*7919%20_000])
	}
	total := 0
	for _, n := range a.asked {
		total += n
	}
	if total > 300 {
		t.Errorf("200 files were wanted, and %d asked about", total)
	}
}

// What nothing was told of keeps nothing else back.
func TestNotDescribed(t *testing.T) {
	a := newAsker(func(ino uint64) bool { return ino%3 == 0 })
	for _, ino := range namesOf(a, 1, 3000) {
		a.look(t, ino)
	}
}

// The cache forgets what was told first, and asks about it again.
func TestDescribedAgain(t *testing.T) {
	a := newAsker(none)
	var inos []uint64
	for dir := range 4 {
		inos = namesOf(a, dir+1, 50_000)
		for _, ino := range inos {
			a.look(t, ino)
		}
		if a.size > maxNodeBytes || a.named > maxNamed || len(a.nodes) > maxNamed {
			t.Errorf("%d bytes, %d names and %d files are kept", a.size, a.named, len(a.nodes))
		}
	}
	// A second look, at a time when the cache is too small for the directory.
	a.size += maxNodeBytes
	a.look(t, inos[0])
	a.look(t, inos[49_999])
}

// Of files that nothing can be told of, each is asked about once with others, however many
// of them a damaged disk has in a row.
func TestNoneDescribed(t *testing.T) {
	a := newAsker(func(ino uint64) bool { return ino%2000 != 1000 })
	inos := slices.Sorted(slices.Values(namesOf(a, 1, 6000)))
	for _, ino := range inos {
		a.look(t, ino)
	}
	total := 0
	for _, n := range a.asked {
		total += n
	}
	if total > 3*len(inos) {
		t.Errorf("%d files were asked about %d times", len(inos), total)
	}
	if len(a.answers) > 100 || a.size < len(a.answers)*entrySize {
		t.Errorf("%d answers are kept as %d bytes", len(a.answers), a.size)
	}
}

// What could not be asked counts as not asked: nobody waits for the answer.
func TestDescriptionNotSent(t *testing.T) {
	a := newAsker(none)
	inos := slices.Sorted(slices.Values(namesOf(a, 1, 2000)))
	for _, ino := range inos[:1000] {
		a.look(t, ino)
	}
	a.ask = func(*description, *description) error { return ErrDied }
	for _, ino := range inos {
		e, k, err := a.want(ino)
		if e == nil && err == nil && !slices.Contains(a.pending, k) {
			t.Fatalf("file %d waits for what was never asked", ino)
		}
	}
}

// Of two directories that are listed at once, the names are no more than of one after the
// other.
func TestNamesOfTwo(t *testing.T) {
	a := newAsker(none)
	var two [2]nameListing
	for page := range 130 {
		for n := range two {
			p := &wire.DirPage{}
			for i := range 1000 {
				p.Entries = append(p.Entries, wire.Entry{DirEntry: disk.DirEntry{Ino: uint64(n<<20 + page*1000 + i + 1)}})
			}
			if a.room(&two[n]) {
				a.addNames(&two[n], p)
			}
		}
	}
	namesOf(a, 3, 50_000)
	namesOf(a, 4, 10_000)
	if a.named != 60_000 || len(a.nodes) != 60_000 {
		t.Errorf("%d names and %d files are kept", a.named, len(a.nodes))
	}
}
