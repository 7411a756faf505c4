package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// Reader is a worker that reads the disks of one VM. All methods are safe for
// concurrent use.
type Reader struct {
	client *client
	stop   func() bool // ends the watch over the context of Start
	disks  []*Disk
	files  images

	mu    sync.Mutex // guards known
	known []Volume   // nil until find was called; disks do not change
}

// images are the files of all disks, in the order in which the worker has them.
type images struct {
	client *client

	mu     sync.Mutex // guards closed, and files until the disks are open
	closed bool
	files  []source // the parent's own, open for reading
	sizes  []int64  // bytes, when the disks were opened
}

// source is a file of an image, or content that stands for one.
type source interface {
	io.ReaderAt
	io.Closer
}

// add makes files known, before any is read.
func (m *images) add(files []source, sizes []int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files, m.sizes = files, sizes
	if m.closed {
		m.closeFiles()
	}
}

func (m *images) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.closeFiles()
}

func (m *images) ended() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

func (m *images) closeFiles() {
	for _, f := range m.files {
		f.Close()
	}
}

// Start starts a worker that reads the disks that specs describe: all those of a
// VM, if its filesystems lie on several. ctx bounds the worker's whole life: when
// it ends the worker is killed, and whatever is being read fails with an [*Error]
// that wraps ctx's.
//
// A host that lacks one of the [Measures] is refused with a [*MissingError],
// unless opts.AllowWithout names it.
func Start(ctx context.Context, opts Options, specs ...DiskSpec) (*Reader, error) {
	open, files, err := openRequest(specs)
	if err != nil {
		return nil, err
	}
	opts.setDefaults()
	r, measures, err := startWorker(ctx, opts, cmp.Or(opts.Name, workerName(specs)), givenOf(files))
	if err != nil {
		return nil, err
	}
	if err = checkMeasures(measures, opts.AllowWithout); err == nil {
		err = r.open(ctx, open, specs, files)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// workerName is what errors of a worker call what it reads.
func workerName(specs []DiskSpec) string {
	if len(specs) == 1 {
		return specs[0].Name
	}
	return fmt.Sprintf("%s and %d more", specs[0].Name, len(specs)-1)
}

// open opens the disks in the worker.
func (r *Reader) open(ctx context.Context, request wire.Open, specs []DiskSpec, files []imageFile) error {
	own, err := duplicates(files)
	if err != nil {
		return err
	}
	r.files.add(own, sizesOf(request))
	r.serve(files)
	k, answer, err := r.client.ask(ctx, wire.OpOpen, request)
	if err != nil {
		return err
	}
	opened, err := wire.DecodeOpened(answer, len(specs))
	if err != nil {
		return r.client.lied(k, err)
	}
	for i, told := range opened.Disks {
		object := wire.Object{Kind: wire.ObjectDisk, Node: wire.Node{Tree: uint32(i)}}
		r.disks = append(r.disks, &Disk{
			content: newContent(r, object, told.Size), reader: r, number: uint32(i),
			name: specs[i].Name, format: specs[i].Format, told: told,
		})
	}
	return nil
}

// sizesOf returns the sizes of all files, in order.
func sizesOf(r wire.Open) (sizes []int64) {
	for _, k := range r.Disks {
		for _, m := range k.Images {
			sizes = append(sizes, m.Size)
			if m.DataSize >= 0 {
				sizes = append(sizes, m.DataSize)
			}
		}
	}
	return sizes
}

// duplicates returns the files under other descriptors, which live on when the
// caller closes its own; content is the caller's to keep.
func duplicates(files []imageFile) ([]source, error) {
	var own []source
	for _, f := range files {
		d, err := f.open()
		if err != nil {
			for _, f := range own {
				f.Close()
			}
			return nil, err
		}
		own = append(own, d)
	}
	return own, nil
}

func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, callErr := -1, error(nil)
	if err := raw.Control(func(old uintptr) { fd, callErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if callErr != nil {
		return nil, fmt.Errorf("duplicate the descriptor of %s: %w", f.Name(), callErr)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// startWorker starts a worker with the given files, and has it confine itself.
func startWorker(ctx context.Context, opts Options, name string, files given) (*Reader, []Measure, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	p, l, err := startProcess(name, opts, files)
	if err != nil {
		return nil, nil, err
	}
	c := newClient(p, l, opts.RequestTimeout)
	go c.run()
	r := &Reader{client: c, files: images{client: c}}
	r.stop = context.AfterFunc(ctx, func() {
		r.end(&Error{Err: context.Cause(ctx), Reason: context.Cause(ctx).Error()})
	})
	measures, err := r.setup(ctx, wire.Setup{
		Files: uint8(len(files.files)), Memory: opts.MemoryLimit, Namespaces: p.isolation == nil, Served: files.served,
	})
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	if p.isolation != nil {
		i := slices.IndexFunc(measures, func(m Measure) bool { return m.Name == Namespaces })
		measures[i].Detail = p.isolation.Error()
	}
	return r, measures, nil
}

// setup has the worker confine itself, and returns one item for each measure.
func (r *Reader) setup(ctx context.Context, request wire.Setup) ([]Measure, error) {
	k, answer, err := r.client.ask(ctx, wire.OpSetup, request)
	if err != nil {
		return nil, err
	}
	told, err := wire.DecodeMeasures(answer)
	if err != nil {
		return nil, r.client.lied(k, err)
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

// Close ends the worker. Reads in progress fail with [ErrClosed], like all that
// come later. The worker's own reads of [DiskSpec.Content] are over when it returns.
func (r *Reader) Close() error {
	r.stop()
	r.end(&Error{Err: ErrClosed, Reason: ErrClosed.Error()})
	<-r.client.ended
	if s := r.client.served(); s != nil {
		<-s.done
	}
	return nil
}

// end makes all reads fail from now on.
func (r *Reader) end(cause *Error) {
	r.client.fail(cause)
	r.files.close()
}

// Disks returns the disks, in the order in which Start was given them.
func (r *Reader) Disks() []*Disk { return r.disks }

// openRequest checks what is declared about disks, and returns their files.
func openRequest(specs []DiskSpec) (wire.Open, []imageFile, error) {
	var r wire.Open
	var files []imageFile
	if len(specs) == 0 || len(specs) > wire.MaxDisks {
		return r, nil, fmt.Errorf("%d disks: a disk reader takes 1 to %d", len(specs), wire.MaxDisks)
	}
	seen := make(map[string]bool)
	for i := range specs {
		switch name := specs[i].Name; {
		case seen[name]:
			return r, nil, fmt.Errorf("disk %s: another disk has the same name", name)
		case name == "" || len(name) > maxDiskName || strings.Contains(name, "/"):
			return r, nil, fmt.Errorf("disk %q: a disk's name has 1 to %d bytes and no slash", name, maxDiskName)
		}
		seen[specs[i].Name] = true
		k, its, err := diskOf(&specs[i])
		if err != nil {
			return r, nil, fmt.Errorf("disk %s: %w", specs[i].Name, err)
		}
		r.Disks, files = append(r.Disks, k), append(files, its...)
	}
	if len(files) > wire.MaxFiles {
		return r, nil, fmt.Errorf("the disks have %d files, a disk reader takes at most %d", len(files), wire.MaxFiles)
	}
	return r, files, nil
}

// maxDiskName bounds the name of a disk, in bytes.
const maxDiskName = 255

// diskOf checks what is declared about a disk, and returns its files, topmost
// first.
func diskOf(spec *DiskSpec) (wire.Disk, []imageFile, error) {
	k := wire.Disk{Name: spec.Name, SectorSize: uint16(spec.SectorSize)}
	if spec.SectorSize == 0 {
		k.SectorSize = 512
	} else if spec.SectorSize != 512 && spec.SectorSize != 4096 {
		return k, nil, fmt.Errorf("sector size %d: only 512 and 4096 exist", spec.SectorSize)
	}
	var files []imageFile
	for s := spec; s != nil; s = s.Backing {
		if len(k.Images) == wire.MaxImages {
			return k, nil, fmt.Errorf("the backing chain has more than %d images", wire.MaxImages)
		}
		m, err := imageOf(s)
		if err != nil {
			return k, nil, err
		}
		k.Images, files = append(k.Images, m), append(files, imageFile{s.File, s.Content})
		if s.DataFile != nil {
			files = append(files, imageFile{file: s.DataFile})
		}
	}
	return k, files, nil
}

func imageOf(s *DiskSpec) (wire.Image, error) {
	m := wire.Image{Format: imageFormats[s.Format], Snapshot: s.Snapshot, DataSize: -1, Served: s.Content != nil}
	switch {
	case s.Content != nil && s.File != nil:
		return m, errors.New("the image is a file or other content, not both")
	case m.Format == 0:
		return m, fmt.Errorf("format %q: declare %q or %q", s.Format, Raw, Qcow2)
	case m.Format == wire.FormatRaw && (s.Snapshot != "" || s.Backing != nil || s.DataFile != nil):
		return m, errors.New("a raw image has neither snapshots nor a backing file nor a data file")
	case len(s.Snapshot) > wire.MaxSnapshotName:
		return m, fmt.Errorf("the snapshot's name has %d bytes, at most %d are possible", len(s.Snapshot), wire.MaxSnapshotName)
	}
	var err error
	if m.Served {
		m.Size = s.Content.Size()
	} else {
		m.Size, err = readableSize(s.File)
	}
	if err == nil && s.DataFile != nil {
		m.DataSize, err = readableSize(s.DataFile)
	}
	return m, err
}

// readableSize returns the size of a file or block device that is open for
// reading only.
func readableSize(f *os.File) (int64, error) {
	if f == nil {
		return 0, errors.New("the image is not open")
	}
	if err := checkReadOnly(f); err != nil {
		return 0, err
	}
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

// list asks for all pages of a list.
func (r *Reader) list(ctx context.Context, op wire.Op, number uint32, limit int, page func(body []byte, skip uint32) (count int, last bool, err error)) error {
	return r.client.list(ctx, op, number, limit, page)
}

func (c *client) list(ctx context.Context, op wire.Op, number uint32, limit int, page func(body []byte, skip uint32) (count int, last bool, err error)) error {
	for skip := 0; ; {
		k, answer, err := c.ask(ctx, op, wire.List{Number: number, Skip: uint32(skip)})
		if err != nil {
			return err
		}
		n, last, err := page(answer, uint32(skip))
		if skip += n; err == nil && skip > limit {
			err = fmt.Errorf("a list of more than %d items", limit)
		}
		if err != nil {
			return c.lied(k, err)
		}
		if last {
			return nil
		}
	}
}

// maxSnapshots is how many snapshots a qcow2 image can have.
const maxSnapshots = 65536

// maxBitmaps is how many bitmaps a qcow2 image can have, as QEMU limits them.
const maxBitmaps = 65535

// maxSubvolumes is what inode numbers leave room for, see
// [disk.SubvolumeShift].
const maxSubvolumes = 1 << 16

// maxSubvolumePaths bounds the paths of all subvolumes together, in bytes, as the reader of
// btrfs does.
const maxSubvolumePaths = 16 << 20
