package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// Disk is a disk image that a worker reads. It is the [disk.Sparse] of what
// the guest sees as the whole disk. All methods are safe for concurrent use.
type Disk struct {
	*content // the whole disk

	name   string
	client *client
	stop   func() bool // ends the watch over the context of Start
}

var _ disk.Sparse = (*Disk)(nil)

// Snapshot is an internal snapshot of a qcow2 image. ID and Name are the words
// of whoever wrote the image: escape them before they are printed.
type Snapshot struct {
	ID, Name  []byte
	Time      disk.Time
	DiskSize  int64 // bytes
	StateSize int64 // bytes of saved machine state; 0 when taken while off
}

// Volume is a part of a disk that may hold a filesystem.
type Volume struct {
	// Number is the partition's, counting from 1 as the kernel does, or 0
	// for a whole disk that has no partition table.
	Number int
	// Table is the kind of partition table that the volume is from: "gpt",
	// "mbr", or "" for a whole disk.
	Table        string
	Offset, Size int64 // bytes from the start of the disk
	// PartitionName is what a GPT calls the volume; hostile bytes.
	PartitionName []byte

	// Type is what the volume holds, as blkid(8) calls it: "ext4", "xfs",
	// "btrfs", "vfat", "swap", "LVM2_member", "crypto_LUKS",
	// "linux_raid_member", "zfs_member"…, or "" when nothing is recognised.
	Type string
	// Readable says that [Disk.Filesystem] reads this type.
	Readable bool
	Label    []byte   // without padding; hostile bytes
	UUID     [16]byte // zero where there is none
}

// Start starts a worker that reads the disk that spec describes. ctx bounds the
// worker's whole life: when it ends the worker is killed, and whatever is being
// read fails with an [*Error] that wraps ctx's.
//
// A host that lacks one of the [Measures] is refused with a [*MissingError],
// unless opts.AllowWithout names it.
func Start(ctx context.Context, opts Options, spec DiskSpec) (*Disk, error) {
	open, images, err := openRequest(&spec)
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", spec.Name, err)
	}
	opts.setDefaults()
	d, measures, err := startWorker(ctx, opts, spec.Name, images)
	if err != nil {
		return nil, err
	}
	size, err := d.open(ctx, open, measures, opts.AllowWithout)
	if err != nil {
		d.Close()
		return nil, err
	}
	d.content = newContent(d.client, wire.Object{Kind: wire.ObjectVolume}, size)
	return d, nil
}

// open opens the disk in a worker whose confinement suffices.
func (d *Disk) open(ctx context.Context, r wire.Open, measures []Measure, allowed []string) (int64, error) {
	if err := checkMeasures(measures, allowed); err != nil {
		return 0, err
	}
	k, answer, err := d.client.ask(ctx, wire.OpOpen, r)
	if err != nil {
		return 0, err
	}
	opened, err := wire.DecodeOpened(answer)
	if err != nil {
		return 0, d.client.lied(k, err)
	}
	return opened.Size, nil
}

// startWorker starts a worker with the given images, and has it confine itself.
func startWorker(ctx context.Context, opts Options, name string, images []*os.File) (*Disk, []Measure, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	p, l, err := startProcess(name, opts, images)
	if err != nil {
		return nil, nil, err
	}
	c := newClient(p, l, opts.RequestTimeout)
	go c.run()
	d := &Disk{name: name, client: c}
	d.stop = context.AfterFunc(ctx, func() {
		c.fail(&Error{Err: context.Cause(ctx), Reason: context.Cause(ctx).Error()})
	})
	measures, err := d.setup(ctx, wire.Setup{
		Disks: uint8(len(images)), Memory: opts.MemoryLimit, Namespaces: p.isolation == nil,
	})
	if err != nil {
		d.Close()
		return nil, nil, err
	}
	if p.isolation != nil {
		i := slices.IndexFunc(measures, func(m Measure) bool { return m.Name == Namespaces })
		measures[i].Detail = p.isolation.Error()
	}
	return d, measures, nil
}

// setup has the worker confine itself, and returns one item for each measure.
func (d *Disk) setup(ctx context.Context, r wire.Setup) ([]Measure, error) {
	k, answer, err := d.client.ask(ctx, wire.OpSetup, r)
	if err != nil {
		return nil, err
	}
	told, err := wire.DecodeMeasures(answer)
	if err != nil {
		return nil, d.client.lied(k, err)
	}
	list := make([]Measure, 0, len(told))
	for _, name := range Measures() {
		m := Measure{Name: name, Detail: "the disk reader did not report it"}
		if i := slices.IndexFunc(told, func(t wire.Measure) bool { return t.Name == name }); i >= 0 {
			m.OK, m.Detail = told[i].OK, told[i].Detail
		}
		list = append(list, m)
	}
	return list, nil
}

// openRequest checks what is declared about a disk, and returns its files,
// topmost first.
func openRequest(spec *DiskSpec) (wire.Open, []*os.File, error) {
	r := wire.Open{SectorSize: uint16(spec.SectorSize)}
	if spec.SectorSize == 0 {
		r.SectorSize = 512
	} else if spec.SectorSize != 512 && spec.SectorSize != 4096 {
		return r, nil, fmt.Errorf("sector size %d: only 512 and 4096 exist", spec.SectorSize)
	}
	var files []*os.File
	for s := spec; s != nil; s = s.Backing {
		if len(files) == wire.MaxImages {
			return r, nil, fmt.Errorf("the backing chain has more than %d images", wire.MaxImages)
		}
		m, err := imageOf(s)
		if err != nil {
			return r, nil, err
		}
		r.Images = append(r.Images, m)
		files = append(files, s.File)
	}
	return r, files, nil
}

func imageOf(s *DiskSpec) (wire.Image, error) {
	format, ok := imageFormats[s.Format]
	switch {
	case !ok:
		return wire.Image{}, fmt.Errorf("format %q: declare %q or %q", s.Format, Raw, Qcow2)
	case format == wire.FormatRaw && (s.Snapshot != "" || s.Backing != nil):
		return wire.Image{}, errors.New("a raw image has neither snapshots nor a backing file")
	case len(s.Snapshot) > wire.MaxSnapshotName:
		return wire.Image{}, fmt.Errorf("the snapshot's name has %d bytes, at most %d are possible", len(s.Snapshot), wire.MaxSnapshotName)
	case s.File == nil:
		return wire.Image{}, errors.New("the image is not open")
	}
	if err := checkReadOnly(s.File); err != nil {
		return wire.Image{}, err
	}
	size, err := fileSize(s.File)
	if err != nil {
		return wire.Image{}, err
	}
	return wire.Image{Format: format, Size: size, Snapshot: s.Snapshot}, nil
}

// fileSize returns the size of a file or block device.
func fileSize(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if st.Mode().IsRegular() {
		return st.Size(), nil
	}
	if st.Mode()&os.ModeDevice == 0 || st.Mode()&os.ModeCharDevice != 0 {
		return 0, fmt.Errorf("%s is neither a file nor a block device", f.Name())
	}
	return f.Seek(0, io.SeekEnd)
}

// Close ends the worker. Reads in progress fail with [ErrClosed], like all that
// come later.
func (d *Disk) Close() error {
	d.stop()
	d.client.fail(&Error{Err: ErrClosed, Reason: ErrClosed.Error()})
	<-d.client.ended
	return nil
}

// Name is the name that the [DiskSpec] gave the disk.
func (d *Disk) Name() string { return d.name }

// Snapshots lists the internal snapshots of a qcow2 image; none for raw.
func (d *Disk) Snapshots(ctx context.Context) ([]Snapshot, error) {
	var list []Snapshot
	for {
		k, answer, err := d.client.ask(ctx, wire.OpSnapshots, wire.Snapshots{Skip: uint32(len(list))})
		if err != nil {
			return nil, err
		}
		page, err := wire.DecodeSnapshotPage(answer)
		if err == nil && len(list) > maxSnapshots {
			err = fmt.Errorf("more than %d snapshots", maxSnapshots)
		}
		if err != nil {
			return nil, d.client.lied(k, err)
		}
		for _, s := range page.List {
			list = append(list, Snapshot(s))
		}
		if page.Last {
			return list, nil
		}
	}
}

// maxSnapshots is how many snapshots a qcow2 image can have.
const maxSnapshots = 65536

// Volumes reads the partition table and recognises what each partition holds.
// A disk without a table is one volume with number 0.
func (d *Disk) Volumes(ctx context.Context) ([]Volume, error) {
	k, answer, err := d.client.ask(ctx, wire.OpVolumes, nil)
	if err != nil {
		return nil, err
	}
	told, err := wire.DecodeVolumes(answer, d.Size())
	if err != nil {
		return nil, d.client.lied(k, err)
	}
	list := make([]Volume, 0, len(told))
	for _, v := range told {
		list = append(list, Volume{
			Number: int(v.Number), Table: v.Table, Offset: v.Offset, Size: v.Size, PartitionName: v.Name,
			Type: v.Type, Readable: v.Readable, Label: v.Label, UUID: v.UUID,
		})
	}
	return list, nil
}

// Volume returns the bytes of a volume; number 0 is the whole disk.
func (d *Disk) Volume(ctx context.Context, number int) (disk.Sparse, error) {
	if number == 0 {
		return d.content, nil
	}
	list, err := d.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range list {
		if v.Number == number {
			return newContent(d.client, wire.Object{Kind: wire.ObjectVolume, Node: wire.Node{Volume: uint32(number)}}, v.Size), nil
		}
	}
	return nil, &disk.Error{Layer: "disk", Structure: fmt.Sprintf("volume %d", number), Offset: -1, Err: disk.ErrNotExist}
}

// Filesystem opens the filesystem in a volume; number 0 is the whole disk. A
// volume that holds something else is refused with [disk.ErrUnsupported], by
// name.
//
// Inode, Xattrs and Readlink are cheap for files that ReadDir has listed not
// long ago. Content that cannot be read is reported by the methods of what Open
// returns, not by Open.
func (d *Disk) Filesystem(ctx context.Context, number int) (disk.Filesystem, error) {
	if number < 0 || number > maxVolume {
		return nil, &disk.Error{Layer: "disk", Structure: fmt.Sprintf("volume %d", number), Offset: -1, Err: disk.ErrNotExist}
	}
	k, answer, err := d.client.ask(ctx, wire.OpMount, wire.Mount{Volume: uint32(number)})
	if err != nil {
		return nil, err
	}
	info, err := wire.DecodeInfo(answer)
	if err != nil {
		return nil, d.client.lied(k, err)
	}
	return newFilesystem(d.client, uint32(number), info), nil
}

// maxVolume is far above what partition tables can count.
const maxVolume = 1 << 16
