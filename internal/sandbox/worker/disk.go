package worker

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sync"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/layout"
	"github.com/drydock-vm/drydock/disk/qcow2"
	"github.com/drydock-vm/drydock/disk/raw"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// reader is the disks that the worker reads, and everything found on them.
type reader struct {
	memory []byte // shared with the parent, in slots
	disks  []*openDisk
	layout func() (*layout.Layout, error)  // read when first needed
	unused func() ([]layout.Unused, error) // of each disk; found when first needed

	mu    sync.Mutex       // guards trees
	trees map[uint32]*tree // by number
}

// openDisk is a disk, as its images make it up.
type openDisk struct {
	top       disk.Sparse
	file      int // number of the topmost image's file
	image     *qcow2.Image
	snapshots []qcow2.Snapshot
}

// openDisks opens the disks as is declared, and never as their images say. The
// images have the given files, in order, or are asked of the parent.
func openDisks(given []*os.File, parent *fetcher, r wire.Open, memory []byte) (*reader, error) {
	files, err := filesOf(given, parent, r)
	if err != nil {
		return nil, err
	}
	d := &reader{memory: memory, trees: make(map[uint32]*tree)}
	var list []layout.Disk
	first := 0
	for _, declared := range r.Disks {
		count := 0
		for _, m := range declared.Images {
			count += m.Files()
		}
		k, err := openImages(files[first:first+count], declared.Images)
		if err != nil {
			return nil, err
		}
		k.file = first
		first += count
		d.disks = append(d.disks, k)
		list = append(list, layout.Disk{Name: declared.Name, Content: k.top, SectorSize: int64(declared.SectorSize)})
	}
	d.layout = sync.OnceValues(func() (*layout.Layout, error) { return layout.Read(list) })
	d.unused = sync.OnceValues(func() ([]layout.Unused, error) {
		l, err := d.layout()
		if err != nil {
			return nil, err
		}
		return l.Unused(), nil
	})
	return d, nil
}

// filesOf returns the files of all images, in order.
func filesOf(given []*os.File, parent *fetcher, r wire.Open) ([]io.ReaderAt, error) {
	var files []io.ReaderAt
	for _, declared := range r.Disks {
		for _, m := range declared.Images {
			need := m.Files()
			if m.Served {
				if parent == nil {
					return nil, fmt.Errorf("%w: an image is served, and there is no socket for it", errProtocol)
				}
				files = append(files, &served{parent: parent, file: uint8(len(files)), size: m.Size})
				need--
			}
			if need > len(given) {
				return nil, fmt.Errorf("%w: %d files are not enough", errProtocol, len(given))
			}
			for _, f := range given[:need] {
				files = append(files, f)
			}
			given = given[need:]
		}
	}
	if len(given) > 0 {
		return nil, fmt.Errorf("%w: %d files are not used", errProtocol, len(given))
	}
	return files, nil
}

// openImages opens a chain of images, the lowest first.
func openImages(files []io.ReaderAt, images []wire.Image) (*openDisk, error) {
	k := new(openDisk)
	end := len(files)
	for i := len(images) - 1; i >= 0; i-- {
		m := images[i]
		end -= m.Files()
		base, err := raw.Open(files[end], m.Size)
		if err != nil {
			return nil, err
		}
		if m.Format == wire.FormatRaw {
			if k.top != nil || m.DataSize >= 0 {
				return nil, fmt.Errorf("%w: a raw image has neither a backing file nor a data file", errProtocol)
			}
			k.top = base
			continue
		}
		opts := qcow2.Options{Snapshot: m.Snapshot, Backing: k.top}
		if m.DataSize >= 0 {
			if opts.DataFile, err = raw.Open(files[end+1], m.DataSize); err != nil {
				return nil, err
			}
		}
		if k.image, err = qcow2.Open(base, m.Size, opts); err != nil {
			return nil, err
		}
		k.top, k.snapshots = k.image, k.image.Snapshots()
	}
	return k, nil
}

// describe says what the parent is told about a disk that was opened.
func (k *openDisk) describe() wire.OpenedDisk {
	out := wire.OpenedDisk{Size: k.top.Size()}
	if k.image != nil {
		info := k.image.Info()
		out.Version, out.ClusterSize, out.Compression = uint8(info.Version), uint32(info.ClusterSize), info.Compression
		out.ExtendedL2, out.Dirty = info.ExtendedL2, info.Dirty
	}
	return out
}

// handle appends the answer to a request to b.
func (d *reader) handle(op wire.Op, payload, b []byte) ([]byte, error) {
	switch op {
	case wire.OpSnapshots:
		return answer(wire.DecodeList, payload, b, d.listSnapshots)
	case wire.OpBitmaps:
		return answer(wire.DecodeList, payload, b, d.listBitmaps)
	case wire.OpDirty:
		return answer(wire.DecodeDirty, payload, b, d.dirtyRanges)
	case wire.OpVolumes:
		return answer(wire.DecodeList, payload, b, d.listVolumes)
	case wire.OpMount:
		return answer(wire.DecodeMount, payload, b, d.mount)
	case wire.OpGuest:
		return answer(wire.DecodeGuest, payload, b, d.openGuest)
	case wire.OpSubvolumes:
		return answer(wire.DecodeList, payload, b, d.listSubvolumes)
	case wire.OpReadDir:
		return answer(wire.DecodeReadDir, payload, b, d.readDir)
	case wire.OpDescribe:
		return answer(wire.DecodeDescribe, payload, b, d.describe)
	case wire.OpInode:
		return answer(wire.DecodeNode, payload, b, d.inode)
	case wire.OpReadlink:
		return answer(wire.DecodeNode, payload, b, d.readlink)
	case wire.OpXattrs:
		return answer(wire.DecodeNode, payload, b, d.xattrs)
	case wire.OpRead:
		return answer(wire.DecodeRead, payload, b, d.read)
	case wire.OpPieces:
		return answer(wire.DecodePiecesRequest, payload, b, d.listPieces)
	case wire.OpReadMany:
		return answer(wire.DecodeReadMany, payload, b, d.readMany)
	case wire.OpUnused:
		return answer(wire.DecodeUnused, payload, b, d.unusedRanges)
	case wire.OpPlaces:
		return answer(wire.DecodePlaces, payload, b, d.places)
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

// page returns the items of a list after the first skip, at most limit, and
// whether they are the last.
func page[T any](list []T, skip uint32, limit int) ([]T, bool) {
	rest := list[min(int(skip), len(list)):]
	return rest[:min(len(rest), limit)], len(rest) <= limit
}

func (d *reader) listSnapshots(r wire.List, b []byte) ([]byte, error) {
	k, err := d.disk(r.Number)
	if err != nil {
		return nil, err
	}
	var out wire.SnapshotPage
	list, last := page(k.snapshots, r.Skip, wire.MaxSnapshots)
	out.Last = last
	for _, s := range list {
		out.List = append(out.List, wire.Snapshot{
			ID: clip([]byte(s.ID), wire.MaxSnapshotName), Name: clip([]byte(s.Name), wire.MaxSnapshotName),
			Time:     disk.Time{Sec: s.Time.Sec, Nsec: min(s.Time.Nsec, 1e9-1)},
			DiskSize: s.Size, StateSize: int64(min(s.VMStateSize, math.MaxInt64)),
		})
	}
	return out.Append(b), nil
}

// bitmaps returns the persistent dirty bitmaps of a disk; a raw one has none.
func (k *openDisk) bitmaps() ([]qcow2.Bitmap, error) {
	if k.image == nil {
		return nil, nil
	}
	return k.image.Bitmaps()
}

func (d *reader) listBitmaps(r wire.List, b []byte) ([]byte, error) {
	k, err := d.disk(r.Number)
	if err != nil {
		return nil, err
	}
	all, err := k.bitmaps()
	if err != nil {
		return nil, err
	}
	var out wire.BitmapPage
	list, last := page(all, r.Skip, wire.MaxBitmaps)
	out.Last = last
	for _, m := range list {
		out.List = append(out.List, wire.Bitmap{
			Name: clip([]byte(m.Name), wire.MaxSnapshotName), Granularity: m.Granularity, State: uint8(m.State), Auto: m.Auto,
		})
	}
	return out.Append(b), nil
}

// dirtyRanges answers with as many ranges as fit.
func (d *reader) dirtyRanges(r wire.Dirty, b []byte) ([]byte, error) {
	k, err := d.disk(r.Number)
	if err != nil {
		return nil, err
	}
	if k.image == nil {
		return nil, &disk.Error{Layer: "raw", Structure: "dirty bitmap", Offset: -1, Err: disk.ErrNotExist, Detail: "a raw image has none"}
	}
	out := wire.DirtyPage{Last: true}
	err = k.image.DirtyRanges(r.Name, func(off, length int64) error {
		end := off + length
		if off = max(off, r.From); off >= end {
			return nil
		}
		if len(out.List) == wire.MaxPieces {
			out.Last = false
			return errEnough
		}
		out.List = append(out.List, wire.ByteRange{Off: off, Length: end - off})
		return nil
	})
	if err != nil && err != errEnough {
		return nil, err
	}
	return out.Append(b), nil
}

// unusedRanges answers with as many ranges as fit.
func (d *reader) unusedRanges(r wire.Unused, b []byte) ([]byte, error) {
	if _, err := d.disk(r.Number); err != nil {
		return nil, err
	}
	all, err := d.unused()
	if err != nil {
		return nil, err
	}
	list := all[r.Number].Ranges
	at, _ := slices.BinarySearchFunc(list, r.From, func(u layout.UnusedRange, from int64) int { return cmp.Compare(u.Offset, from) })
	out := wire.UnusedPage{Last: len(list)-at <= wire.MaxPieces}
	for _, u := range list[at:min(at+wire.MaxPieces, len(list))] {
		out.List = append(out.List, wire.UnusedRange{ByteRange: wire.ByteRange{Off: u.Offset, Length: u.Length}, Swap: u.Swap})
	}
	if out.Last {
		kept := all[r.Number].Kept
		out.Kept = kept[:min(len(kept), wire.MaxRemarks)]
	}
	return out.Append(b), nil
}

// places answers with as many runs as fit.
func (d *reader) places(r wire.Places, b []byte) ([]byte, error) {
	l, err := d.layout()
	if err != nil {
		return nil, err
	}
	content, err := volumeBytes(l, r.Number)
	if err != nil {
		return nil, err
	}
	var out wire.PlacePage
	err = placesOf(content, r.From, func(g wire.PlaceRun) error {
		if n := len(out.List); n > 0 {
			last := &out.List[n-1]
			if last.Disk == g.Disk && (g.Disk == wire.NoDisk || last.At+last.Length == g.At) {
				last.Length += g.Length
				return nil
			}
			if n == wire.MaxPieces {
				return errEnough
			}
		}
		out.List = append(out.List, g)
		return nil
	})
	if err != nil && err != errEnough {
		return nil, err
	}
	out.Last = err == nil
	return out.Append(b), nil
}

// placesOf calls yield for where the content of a volume lies, from an offset on.
func placesOf(content disk.Sparse, from int64, yield func(wire.PlaceRun) error) error {
	l, ok := content.(disk.Locator)
	if !ok || from > content.Size() {
		return fmt.Errorf("%w: places from %d on, of %d", errProtocol, from, content.Size())
	}
	return l.Locate(from, content.Size()-from, func(at disk.Location) error {
		if at.Device < 0 {
			return yield(wire.PlaceRun{Disk: wire.NoDisk, Length: at.Length})
		}
		return yield(wire.PlaceRun{Disk: uint32(at.Device), At: at.At, Length: at.Length})
	})
}

// clip shortens a text that is only shown.
func clip[T ~[]byte | ~string](b T, limit int) T { return b[:min(len(b), limit)] }

// disk returns a disk by its number.
func (d *reader) disk(number uint32) (*openDisk, error) {
	if int64(number) >= int64(len(d.disks)) {
		return nil, fmt.Errorf("%w: disk %d of %d", errProtocol, number, len(d.disks))
	}
	return d.disks[number], nil
}

// object returns the bytes that a request names, and where they lie.
func (d *reader) object(o wire.Object) (disk.Sparse, place, error) {
	switch o.Kind {
	case wire.ObjectDisk:
		k, err := d.disk(o.Tree)
		if err != nil {
			return nil, nil, err
		}
		return k.top, onFiles{k}, nil
	case wire.ObjectVolume:
		l, err := d.layout()
		if err != nil {
			return nil, nil, err
		}
		content, err := volumeBytes(l, o.Tree)
		return content, onDisks{d}, err
	}
	t, err := d.tree(o.Tree)
	if err != nil {
		return nil, nil, err
	}
	content, err := t.open(o.Ino)
	return content, t.place(o.Ino), err
}

// volumeBytes returns the bytes of a volume.
func volumeBytes(l *layout.Layout, number uint32) (disk.Sparse, error) {
	if int64(number) >= int64(len(l.Volumes())) {
		return nil, fmt.Errorf("%w: volume %d of %d", errProtocol, number, len(l.Volumes()))
	}
	return l.Bytes(int(number))
}

// slot returns the shared memory where content is to be.
func (d *reader) slot(number uint8) []byte {
	return d.memory[(int(number)-1)*wire.SlotSize:][:wire.SlotSize:wire.SlotSize]
}

// read reads exactly the bytes that were asked for.
func (d *reader) read(r wire.Read, b []byte) ([]byte, error) {
	content, _, err := d.object(r.Object)
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
