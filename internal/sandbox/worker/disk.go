package worker

import (
	"fmt"
	"math"
	"os"
	"sync"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/partition"
	"github.com/drydock-vm/drydock/disk/qcow2"
	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// openDisk is the disk that the worker reads, and everything found on it.
type openDisk struct {
	memory    []byte // shared with the parent, in slots
	top       disk.Sparse
	snapshots []qcow2.Snapshot
	table     func() (*partition.Table, error) // read when first needed

	mu     sync.Mutex             // guards mounts
	mounts map[uint32]*filesystem // by volume number
}

// openImages opens a chain of images, the lowest first, as is declared and
// never as the images say.
func openImages(files []*os.File, r wire.Open, memory []byte) (*openDisk, error) {
	d := &openDisk{memory: memory, mounts: make(map[uint32]*filesystem)}
	for i := len(files) - 1; i >= 0; i-- {
		m := r.Images[i]
		if m.Format == wire.FormatRaw {
			if d.top != nil {
				return nil, fmt.Errorf("%w: a raw image over another", errProtocol)
			}
			top, err := raw.Open(files[i], m.Size)
			if err != nil {
				return nil, err
			}
			d.top, d.snapshots = top, nil
			continue
		}
		top, err := qcow2.Open(files[i], m.Size, qcow2.Options{Snapshot: m.Snapshot, Backing: d.top})
		if err != nil {
			return nil, err
		}
		d.top, d.snapshots = top, top.Snapshots()
	}
	d.table = sync.OnceValues(func() (*partition.Table, error) {
		return partition.Read(d.top, int64(r.SectorSize))
	})
	return d, nil
}

// handle appends the answer to a request to b.
func (d *openDisk) handle(op wire.Op, payload, b []byte) ([]byte, error) {
	switch op {
	case wire.OpSnapshots:
		return answer(wire.DecodeSnapshots, payload, b, d.listSnapshots)
	case wire.OpVolumes:
		return d.listVolumes(b)
	case wire.OpMount:
		return answer(wire.DecodeMount, payload, b, d.mount)
	case wire.OpReadDir:
		return answer(wire.DecodeReadDir, payload, b, d.readDir)
	case wire.OpInode:
		return answer(wire.DecodeNode, payload, b, d.inode)
	case wire.OpReadlink:
		return answer(wire.DecodeNode, payload, b, d.readlink)
	case wire.OpXattrs:
		return answer(wire.DecodeNode, payload, b, d.xattrs)
	case wire.OpRead:
		return answer(wire.DecodeRead, payload, b, d.read)
	case wire.OpExtents:
		return answer(wire.DecodeExtentsRequest, payload, b, d.extents)
	case wire.OpReadMany:
		return answer(wire.DecodeReadMany, payload, b, d.readMany)
	}
	return nil, fmt.Errorf("%w: unknown request %d", errProtocol, op)
}

// answer decodes a request and has it answered.
func answer[R any](decode func([]byte) (R, error), payload, b []byte, serve func(R, []byte) ([]byte, error)) ([]byte, error) {
	r, err := decode(payload)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errProtocol, err)
	}
	return serve(r, b)
}

func (d *openDisk) listSnapshots(r wire.Snapshots, b []byte) ([]byte, error) {
	rest := d.snapshots[min(int(r.Skip), len(d.snapshots)):]
	page := wire.SnapshotPage{Last: len(rest) <= wire.MaxSnapshots}
	for _, s := range rest[:min(len(rest), wire.MaxSnapshots)] {
		page.List = append(page.List, wire.Snapshot{
			ID: clip([]byte(s.ID), wire.MaxSnapshotName), Name: clip([]byte(s.Name), wire.MaxSnapshotName),
			Time:     disk.Time{Sec: s.Time.Sec, Nsec: min(s.Time.Nsec, 1e9-1)},
			DiskSize: s.Size, StateSize: int64(min(s.VMStateSize, math.MaxInt64)),
		})
	}
	return page.Append(b), nil
}

// clip shortens a text that is only shown.
func clip(b []byte, limit int) []byte { return b[:min(len(b), limit)] }

// object returns the bytes that a request names.
func (d *openDisk) object(o wire.Object) (disk.Sparse, error) {
	if o.Kind == wire.ObjectVolume {
		return d.volume(o.Volume)
	}
	fs, err := d.mounted(o.Volume)
	if err != nil {
		return nil, err
	}
	return fs.open(o.Ino)
}

// slot returns the shared memory where content is to be.
func (d *openDisk) slot(number uint8) []byte {
	return d.memory[(int(number)-1)*wire.SlotSize:][:wire.SlotSize:wire.SlotSize]
}

// read reads exactly the bytes that were asked for.
func (d *openDisk) read(r wire.Read, b []byte) ([]byte, error) {
	content, err := d.object(r.Object)
	if err != nil {
		return nil, err
	}
	if r.Slot != 0 {
		return b, readExactly(content, d.slot(r.Slot)[:r.Length], r.Off)
	}
	start := len(b)
	b = b[:start+int(r.Length)] // an answer's buffer has room for InlineData
	return b, readExactly(content, b[start:], r.Off)
}

// readExactly fills p.
func readExactly(content disk.Sparse, p []byte, off int64) error {
	if off > content.Size() || int64(len(p)) > content.Size()-off {
		return &disk.Error{Layer: "reader", Structure: "content", Offset: off, Err: disk.ErrCorrupt,
			Detail: fmt.Sprintf("%d bytes are to be read, the content has %d in all", len(p), content.Size())}
	}
	n, err := content.ReadAt(p, off)
	if n == len(p) {
		return nil // with io.EOF, when this was the end
	}
	if err == nil {
		err = fmt.Errorf("%d bytes at %d: only %d were read", len(p), off, n)
	}
	return err
}

// extents answers with as many extents as fit.
func (d *openDisk) extents(r wire.Extents, b []byte) ([]byte, error) {
	content, err := d.object(r.Object)
	if err != nil {
		return nil, err
	}
	list, err := listExtents(content, r.Off, r.Length, wire.MaxExtents)
	if err != nil {
		return nil, err
	}
	return wire.AppendExtents(b, list), nil
}

// listExtents returns the first extents of a range, neighbours of one kind
// merged, at most limit.
func listExtents(content disk.Sparse, off, length int64, limit int) ([]disk.Extent, error) {
	if off > content.Size() || length > content.Size()-off {
		return nil, &disk.Error{Layer: "reader", Structure: "content", Offset: off, Err: disk.ErrCorrupt,
			Detail: fmt.Sprintf("extents of %d bytes are asked for, the content has %d in all", length, content.Size())}
	}
	var list []disk.Extent
	next := off
	err := content.Extents(off, length, func(e disk.Extent) error {
		if e.Length == 0 {
			return nil
		}
		if e.Offset != next || e.Length < 0 || e.Length > off+length-next || e.Kind > disk.ExtentHole {
			return &disk.Error{Layer: "reader", Structure: "extents", Offset: e.Offset, Err: disk.ErrCorrupt,
				Detail: fmt.Sprintf("an extent of %d bytes of kind %d does not follow the one that ends at %d", e.Length, e.Kind, next)}
		}
		next += e.Length
		if n := len(list); n > 0 && list[n-1].Kind == e.Kind {
			list[n-1].Length += e.Length
			return nil
		}
		if len(list) == limit {
			return errEnough
		}
		list = append(list, e)
		return nil
	})
	if err != nil && err != errEnough {
		return nil, err
	}
	if err == nil && next != off+length {
		return nil, &disk.Error{Layer: "reader", Structure: "extents", Offset: next, Err: disk.ErrCorrupt,
			Detail: fmt.Sprintf("the extents end before %d", off+length)}
	}
	return list, nil
}
