package wholedisk

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/repository"
)

// Source is a disk to store.
type Source struct {
	Disk    string // its name
	Content disk.Sparse

	// Unused yields the ranges that the guest does not use, in ascending order;
	// nil keeps them. It returns why volumes are kept whole that should have some.
	Unused func(ctx context.Context, yield func(off, length int64, swap bool) error) (kept []error, err error)
	// Dirty yields the ranges that were written to since the bitmap of that name
	// was started. An error says why that is not known. Nil is a disk that has
	// no bitmaps.
	Dirty func(ctx context.Context, bitmap string, yield func(off, length int64) error) error
	// Bitmap names the bitmap that was started when this disk was frozen, or
	// before that; empty if none was. Granularity is that of its bits, in bytes.
	Bitmap      string
	Granularity int64

	// Layout says that Unused yields the place of the filesystem whose files are
	// backed up, too: what is stored is what is around it.
	Layout bool
}

// Options are the choices of one run.
type Options struct {
	// Time is when the disk was frozen.
	Time time.Time
	// Progress is told now and then how many bytes of the disk are done, from one
	// goroutine, if it is not nil.
	Progress func(done int64)
}

// Save stores a disk. The caller holds the repository's lock and has loaded its
// index; parent is the last snapshot of the VM, or nil. The objects are to be put
// into the snapshot, after a flush.
func Save(ctx context.Context, repo *repository.Repository, parent *repository.Snapshot, src Source, opts Options) ([]backup.Object, *Report, error) {
	s := &saver{repo: repo, src: src, opts: opts, report: &Report{Disk: src.Disk, Size: src.Content.Size(), Layout: src.Layout}}
	if src.Layout {
		s.tag = layoutTag + src.Disk
	}
	objects, err := s.save(ctx, parent)
	if err != nil {
		return nil, nil, fmt.Errorf("disk %s: %w", src.Disk, err)
	}
	return objects, s.report, nil
}

// saver stores one disk.
type saver struct {
	repo   *repository.Repository
	src    Source
	opts   Options
	report *Report
	tag    string // for the snapshot, if it is not that of a whole disk
	sha256 string // of a version of an image

	size, segment int64
	old           *stored   // nil if there is none, or it is of no use
	changed       *segments // that have to be looked at; nil is all of them
	unused        []span
	swap          []span // those of unused that are swap space
	left          []span // what is left out, merged

	ids     []repository.ID
	differs atomic.Bool    // from the list that old had
	zero    *repository.ID // of a segment of zeros
	buffers sync.Pool      // of segments, as *[]byte
}

func (s *saver) save(ctx context.Context, parent *repository.Snapshot) ([]backup.Object, error) {
	s.size = s.src.Content.Size()
	old, err := load(ctx, s.repo, parent, s.src.Disk)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		s.report.Warnings = append(s.report.Warnings, fmt.Errorf("the last backup of disk %s: %w", s.src.Disk, err))
	}
	s.old = old
	before := int64(0)
	if old != nil {
		before = old.Segment
	}
	if s.segment, err = segmentSize(s.size, before); err != nil {
		return nil, err
	}
	if err := s.findUnused(ctx); err != nil {
		return nil, err
	}
	if s.changed, err = s.findChanged(ctx); err != nil {
		return nil, err
	}
	if err := s.segments(ctx); err != nil {
		return nil, err
	}
	return s.objects(ctx)
}

// findUnused collects what the guest does not use.
func (s *saver) findUnused(ctx context.Context) error {
	if s.src.Unused == nil {
		return nil
	}
	kept, err := s.src.Unused(ctx, func(off, length int64, swap bool) error {
		if len(s.unused) == maxRanges {
			return errFound
		}
		g := span{off, off + length}
		s.unused = append(s.unused, g)
		if swap {
			s.swap = append(s.swap, g)
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return nil
	}
	s.report.Kept = kept
	return err
}

// findChanged returns the segments that may have changed since the last backup, or
// nil if that is not known: then the report says why.
func (s *saver) findChanged(ctx context.Context) (*segments, error) {
	switch {
	case s.src.Layout:
		s.report.Whole = "little of it is stored"
	case s.old == nil:
		s.report.Whole = "there is no earlier image of this disk"
	case s.old.Bitmap == "" || s.src.Dirty == nil:
		s.report.Whole = "no dirty bitmap was started at the last backup"
	case s.old.Size != s.size || s.old.Segment != s.segment:
		s.report.Whole = "the disk has another size now"
	}
	if s.report.Whole != "" {
		return nil, nil
	}
	changed := newSegments(s.size, s.segment)
	err := s.src.Dirty(ctx, s.old.Bitmap, func(off, length int64) error {
		if off < 0 || length <= 0 || off > s.size || length > s.size-off {
			return fmt.Errorf("%d bytes at %d are not on a disk of %d", length, off, s.size)
		}
		changed.add(span{off, off + length})
		return nil
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		s.report.Whole = err.Error()
		return nil, nil
	}
	// What was left out then and is in use now need not have been written to
	// since: a file can be undeleted.
	unused := cursor(s.unused)
	for _, l := range s.old.left {
		_ = unused.split(l.start, l.end, func(part span, in bool) error {
			if !in {
				changed.add(part)
			}
			return nil
		})
	}
	s.report.Bitmap = s.old.Bitmap
	return changed, nil
}

// segments stores all segments.
func (s *saver) segments(ctx context.Context) error {
	if s.old != nil && s.old.Size == s.size && s.old.Segment == s.segment {
		// Two lists of a disk of 16 TiB would be 128 MiB: what was looked at of
		// the old one becomes the new one.
		s.ids, s.old.node.Content = s.old.node.Content, nil
	} else {
		s.ids = make([]repository.ID, count(s.size, s.segment))
		s.differs.Store(true)
	}
	s.buffers.New = func() any {
		b := make([]byte, s.segment)
		return &b
	}
	f := &filler{saver: s, unused: s.unused, swap: s.swap}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	err := func() error {
		for i := 0; i < len(s.ids); {
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			n, err := s.segmentsAt(gctx, g, f, i)
			if err != nil {
				return err
			}
			i += n
			if s.opts.Progress != nil && (n > 1 || i%64 == 0) {
				s.opts.Progress(int64(i) * s.segment)
			}
		}
		return nil
	}()
	if saveErr := g.Wait(); saveErr != nil {
		return saveErr
	}
	return err
}

// segmentsAt stores one segment, or has it stored by g; or several, of a hole. It
// returns how many.
func (s *saver) segmentsAt(ctx context.Context, g *errgroup.Group, f *filler, i int) (int, error) {
	off := int64(i) * s.segment
	n := min(s.segment, s.size-off)
	if s.changed != nil && !s.changed.has(i) {
		if size, ok := s.repo.BlobSize(repository.DataBlob, s.ids[i]); ok && size == n {
			s.report.Unchanged += n
			return 1, nil
		}
	}
	if n == s.segment {
		if run := f.hole(off); run > 0 {
			return s.hole(ctx, i, run)
		}
	}
	buf := s.buffers.Get().(*[]byte)
	data, err := f.fill((*buf)[:n], off)
	if err != nil {
		return 0, err
	}
	if !data {
		s.buffers.Put(buf)
		id, err := s.zeros(ctx, n)
		s.set(i, id)
		return 1, err
	}
	g.Go(func() error {
		defer s.buffers.Put(buf)
		id, stored, err := s.repo.SaveBlob(ctx, repository.DataBlob, (*buf)[:n])
		s.set(i, id)
		s.report.stored(stored)
		return err
	})
	return 1, nil
}

// set says which blob a segment is. Several segments are set at once, and each once.
func (s *saver) set(i int, id repository.ID) {
	if s.ids[i] != id {
		s.ids[i] = id
		s.differs.Store(true)
	}
}

// hole makes up to run whole segments zeros. Of those behind the first, some may
// rather be taken over if there is a bitmap.
func (s *saver) hole(ctx context.Context, i, run int) (int, error) {
	if s.changed != nil {
		run = 1
	}
	id, err := s.zeros(ctx, s.segment)
	if err != nil {
		return 0, err
	}
	for j := range run {
		s.set(i+j, id)
	}
	s.report.Zero += int64(run) * s.segment
	return run, nil
}

// zeros stores a segment of zeros, once but for the last.
func (s *saver) zeros(ctx context.Context, n int64) (repository.ID, error) {
	if n == s.segment && s.zero != nil {
		return *s.zero, nil
	}
	id, stored, err := s.repo.SaveBlob(ctx, repository.DataBlob, make([]byte, n))
	s.report.stored(stored)
	if n == s.segment {
		s.zero = &id
	}
	return id, err
}

// objects makes the files of the disk. They are those of the last backup to the
// second, if nothing has changed.
func (s *saver) objects(ctx context.Context) ([]backup.Object, error) {
	free := "skip"
	if s.src.Unused == nil {
		free = "keep"
	}
	text, err := json.Marshal(about{
		Version: aboutVersion, Size: s.size, Segment: s.segment, Bitmap: s.src.Bitmap, BitmapGranularity: s.src.Granularity,
		Free: free, Out: appendSpans(nil, s.leftOut()), SHA256: s.sha256,
	})
	if err != nil {
		return nil, err
	}
	content, _, stored, err := s.repo.SaveStream(ctx, bytes.NewReader(append(text, '\n')))
	if err != nil {
		return nil, err
	}
	s.report.stored(stored)
	image, change := s.node(s.src.Disk+imageEnding, s.size, s.ids), backup.Added
	description, told := s.node(s.src.Disk+aboutEnding, int64(len(text))+1, content), backup.Added
	if s.old != nil {
		change = sinceOld(&image, s.old.node, !s.differs.Load())
		told = sinceOld(&description, s.old.json, slices.Equal(s.old.json.Content, content))
	}
	objects := pair(s.src.Disk, image, description, []string{cmp.Or(s.tag, imageTag+s.src.Disk)})
	objects[0].Change, objects[1].Change = change, told
	return objects, nil
}

// sinceOld compares a file with what the last backup has. One whose content is the same
// has not changed, and has the time of the old one.
func sinceOld(n, old *repository.Node, same bool) backup.Change {
	if !same {
		return backup.Changed
	}
	n.ModTime, n.AccessTime, n.ChangeTime = old.ModTime, old.ModTime, old.ModTime
	return backup.Unchanged
}

// pair is the two files of a disk, as if they were unchanged.
func pair(disk string, image, description repository.Node, tags []string) []backup.Object {
	return []backup.Object{
		{Path: ImagePath(disk), Node: image, Tags: tags, Told: true},
		{Path: aboutPath(disk), Node: description, Told: true},
	}
}

// leftOut is what the image has and the backup has not.
func (s *saver) leftOut() []span {
	list := slices.Concat(s.unused, s.left)
	slices.SortFunc(list, func(a, b span) int { return int(min(max(a.start-b.start, -1), 1)) })
	out := list[:0]
	for _, g := range list {
		if n := len(out); n > 0 && g.start <= out[n-1].end {
			out[n-1].end = max(out[n-1].end, g.end)
			continue
		}
		out = append(out, g)
	}
	return out
}

func (s *saver) node(name string, size int64, content []repository.ID) repository.Node {
	const mode fs.FileMode = 0o600
	return repository.Node{
		Name: name, Type: repository.NodeFile, Mode: mode, ModTime: s.opts.Time, AccessTime: s.opts.Time, ChangeTime: s.opts.Time,
		User: "root", Group: "root", Size: uint64(size), Links: 1, Content: content,
	}
}
