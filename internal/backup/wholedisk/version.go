package wholedisk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/repository"
)

// Version is the version of an image that a disk was made from. The disk has no
// state, so that the version is what there is to be kept of it.
type Version struct {
	Disk   string // its name
	Name   string // of the version: "v2"
	Size   int64  // bytes
	SHA256 string // of all of it, hexadecimal

	// Open opens the version, and returns what closes it. It is called only if the
	// last backup does not have it.
	Open func(ctx context.Context) (disk.Sparse, func(), error)
}

// ErrVersion is of a version that cannot be read, or is not what it was when it was
// imported. It is not stored; the rest of the backup can be.
var ErrVersion = errors.New("the image store does not have it as it was imported")

// SaveVersion stores a version, or takes it over from the parent snapshot: then it is
// not read, and the report is nil. All else is as with [Save].
func SaveVersion(ctx context.Context, repo *repository.Repository, parent *repository.Snapshot, v Version, opts Options) ([]backup.Object, *Report, error) {
	tag := versionTag + v.Disk + "=" + v.Name
	old, err := load(ctx, repo, parent, v.Disk)
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	if err == nil && old != nil && HasVersion(parent, v.Disk) && old.SHA256 == v.SHA256 && old.Size == v.Size && old.whole(repo) {
		return pair(v.Disk, *old.node, *old.json, []string{tag}), nil, nil
	}
	content, stop, err := v.open(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("disk %s: version %s: %w", v.Disk, v.Name, err)
	}
	defer stop()
	s := &saver{
		repo: repo, src: Source{Disk: v.Disk, Content: content}, opts: opts,
		report: &Report{Disk: v.Disk, Size: v.Size}, tag: tag, sha256: v.SHA256,
	}
	objects, err := s.save(ctx, parent)
	if err == nil && s.report.DamagedTotal > 0 {
		err = fmt.Errorf("%w: %w", ErrVersion, s.report.Damaged[0])
	}
	if err != nil {
		return nil, nil, fmt.Errorf("disk %s: version %s: %w", v.Disk, v.Name, err)
	}
	s.report.Whole = "the first backup with version " + v.Name
	return objects, s.report, nil
}

// open opens the version, and makes sure that it is what was imported: a restore
// would refuse another.
func (v *Version) open(ctx context.Context) (disk.Sparse, func(), error) {
	content, stop, err := v.Open(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrVersion, err)
	}
	h := sha256.New()
	switch n, err := io.Copy(h, &readerOf{ctx, io.NewSectionReader(content, 0, content.Size())}); {
	case ctx.Err() != nil:
		stop()
		return nil, nil, context.Cause(ctx)
	case err != nil:
		stop()
		return nil, nil, fmt.Errorf("%w: %w", ErrVersion, err)
	case n != v.Size || hex.EncodeToString(h.Sum(nil)) != v.SHA256:
		stop()
		return nil, nil, fmt.Errorf("%w: its size or digest is another (import it again)", ErrVersion)
	}
	return content, stop, nil
}

// readerOf reads until ctx ends.
type readerOf struct {
	ctx context.Context
	io.Reader
}

func (r *readerOf) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// whole reports whether the repository has all of a disk.
func (o *stored) whole(repo *repository.Repository) bool {
	for _, n := range []*repository.Node{o.node, o.json} {
		var sum uint64
		for _, id := range n.Content {
			size, ok := repo.BlobSize(repository.DataBlob, id)
			if !ok {
				return false
			}
			sum += uint64(size)
		}
		if sum != n.Size {
			return false
		}
	}
	return true
}
