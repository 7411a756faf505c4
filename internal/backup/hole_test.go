package backup_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
)

func TestHolesComeBackAsZeros(t *testing.T) {
	t.Parallel()
	for name, layout := range map[string][]disk.Extent{
		"only a small hole":   {{Length: 100, Kind: disk.ExtentHole}},
		"one large hole":      {{Length: 40<<20 + 5, Kind: disk.ExtentHole}},
		"hole, data, hole":    {{Length: 9 << 20, Kind: disk.ExtentZero}, {Length: 5000}, {Length: 20 << 20, Kind: disk.ExtentHole}},
		"holes that add up":   {{Length: 7}, {Length: 5 << 20, Kind: disk.ExtentHole}, {Length: 5 << 20, Kind: disk.ExtentZero}, {Length: 9}},
		"data, large, data":   {{Length: 3 << 20}, {Length: 16 << 20, Kind: disk.ExtentHole}, {Length: 1}},
		"small, data, small":  {{Length: 100, Kind: disk.ExtentHole}, {Length: 100}, {Length: 100, Kind: disk.ExtentHole}},
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
			r.back(t, backup.Source{Disk: "root", Mount: "/", FS: h})
			got, err := os.ReadFile(filepath.Join(r.restored(t), "f0"))
			if err != nil || !bytes.Equal(got, f.data) {
				t.Errorf("%d bytes came back, %d went in; %v", len(got), len(f.data), err)
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
