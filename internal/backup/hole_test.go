package backup_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/repository"
)

func TestHolesAreKept(t *testing.T) {
	t.Parallel()
	for name, layout := range map[string][]disk.Extent{
		"only a small hole":   {{Length: 100, Kind: disk.ExtentHole}},
		"one large hole":      {{Length: 40<<20 + 5, Kind: disk.ExtentHole}},
		"hole, data, hole":    {{Length: 9 << 20, Kind: disk.ExtentZero}, {Length: 5000}, {Length: 20 << 20, Kind: disk.ExtentHole}},
		"holes that add up":   {{Length: 7}, {Length: 5 << 20, Kind: disk.ExtentHole}, {Length: 5 << 20, Kind: disk.ExtentZero}, {Length: 9}},
		"data, large, data":   {{Length: 3 << 20}, {Length: 16 << 20, Kind: disk.ExtentHole}, {Length: 1}},
		"small, data, small":  {{Length: 512, Kind: disk.ExtentHole}, {Length: 512}, {Length: 100, Kind: disk.ExtentZero}},
		"no hole":             {{Length: 5000}},
		"exactly one blob":    {{Length: 8 << 20, Kind: disk.ExtentHole}},
		"large, small, large": {{Length: 8 << 20, Kind: disk.ExtentHole}, {Length: 1}, {Length: 8 << 20, Kind: disk.ExtentHole}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newPieces(layout)
			h := flat("")
			n := h.inodes[10]
			n.Size = f.Size()
			h.inodes[10], h.files[10] = n, f
			r := newRepo(t)
			first := r.back(t, root(h))
			got, err := os.ReadFile(filepath.Join(r.restored(t), "f0"))
			if err != nil || !bytes.Equal(got, f.data) {
				t.Errorf("%d bytes came back, %d went in; %v", len(got), len(f.data), err)
			}
			holes, known, err := nodeAt(t, r, first.Tree, "f0").Holes()
			if want := f.holes(); err != nil || !slices.Equal(holes, want) || known != (len(want) > 0) {
				t.Errorf("holes %v, %v, %v; want %v", holes, known, err, want)
			}
			if again := r.back(t, root(h)); again.Tree != first.Tree || again.BytesRead != 0 {
				t.Errorf("the same file made another tree, of %d bytes read", again.BytesRead)
			}
		})
	}
}

// pieces is a file of given extents; its data is all ones.
type pieces struct {
	data    []byte
	extents []disk.Extent
}

func newPieces(layout []disk.Extent) *pieces {
	p := &pieces{}
	for _, e := range layout {
		e.Offset = int64(len(p.data))
		p.extents = append(p.extents, e)
		fill := byte(0)
		if e.Kind == disk.ExtentData {
			fill = 1
		}
		p.data = append(p.data, bytes.Repeat([]byte{fill}, int(e.Length))...)
	}
	return p
}

// holes are what is no data, neighbours merged.
func (p *pieces) holes() (list []repository.Hole) {
	var end int64 // of the last one
	for _, e := range p.extents {
		switch {
		case e.Kind == disk.ExtentData:
			continue
		case len(list) > 0 && end == e.Offset:
			list[len(list)-1].Length += e.Length
		default:
			list = append(list, repository.Hole{Offset: e.Offset, Length: e.Length})
		}
		end = e.Offset + e.Length
	}
	return list
}

// Zeros that are data are told from holes: by a record where a restore could take
// them for one.
func TestZerosAreNoHoles(t *testing.T) {
	t.Parallel()
	h := flat("", "", "")
	for ino, size := range map[uint64]int{10: 40 << 10, 11: 3 << 20, 12: 5000} {
		h.write(ino, string(make([]byte, size)))
	}
	r := newRepo(t)
	rep := r.back(t, root(h))
	for name, want := range map[string]bool{"f0": true, "f1": true, "f2": false} {
		if holes, known, err := nodeAt(t, r, rep.Tree, name).Holes(); known != want || len(holes) != 0 || err != nil {
			t.Errorf("%s: holes %v, %v, %v", name, holes, known, err)
		}
	}
}

func (p *pieces) Size() int64 { return int64(len(p.data)) }

func (p *pieces) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(p.data).ReadAt(b, off)
}

func (p *pieces) Extents(_, _ int64, yield func(disk.Extent) error) error {
	for _, e := range p.extents {
		if err := yield(e); err != nil {
			return err
		}
	}
	return nil
}
