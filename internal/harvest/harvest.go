// Package harvest brings what a builder VM has built into the image store. It
// reads the builder's output disk through a [disk.Filesystem], which outside
// tests is that of a confined worker, after the builder has stopped.
//
// The builder is hostile. Its manifest is read within limits and accepted in
// one spelling only; an image is taken under a name that the configuration
// gives, as raw bytes that nobody looks into, and only if size and digest are
// those of the manifest. An image that is wrong costs that image.
package harvest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/build"
	"github.com/drydock-vm/drydock/internal/image"
)

// ErrNothing says that the output disk carries no finished build.
var ErrNothing = errors.New("the builder has finished nothing")

// readSize is the size of a read of the output disk, in bytes: each one goes
// through the worker.
const readSize = 1 << 20

// Options say what is expected of the builder.
type Options struct {
	Images []string // the names that it may build
	Store  *image.Store
	// Seen says whether the images of a build were harvested before.
	Seen func(buildID string) bool
}

// Image is one image that was harvested.
type Image struct {
	image.Version
	New bool // false when the store had it already
}

// Result is what a finished build brought.
type Result struct {
	BuildID    string
	SpecDigest string
	Images     []Image
}

// Harvest imports every image of the finished build on fsys, and makes those
// that it built anew the current ones. It returns [ErrNothing] when there is no
// manifest, or only one that was seen before. When some images are wrong the error names them, and the result
// holds the others.
func Harvest(ctx context.Context, fsys disk.Filesystem, o Options) (*Result, error) {
	m, err := readManifest(fsys)
	if err != nil {
		return nil, err
	}
	if o.Seen(m.BuildID) {
		return nil, ErrNothing
	}
	r := &Result{BuildID: m.BuildID, SpecDigest: m.SpecDigest}
	var errs []error
	for _, i := range m.Images {
		if !slices.Contains(o.Images, i.Name) {
			errs = append(errs, fmt.Errorf("the builder offers an image %q, which it is not configured to build (builder.images)", i.Name))
			continue
		}
		got, err := importImage(ctx, fsys, o.Store, m, i)
		if err != nil {
			errs = append(errs, fmt.Errorf("image %s %s: %w", i.Name, i.Version, err))
			continue
		}
		r.Images = append(r.Images, got)
	}
	return r, errors.Join(errs...)
}

func readManifest(fsys disk.Filesystem) (build.Manifest, error) {
	f, err := open(fsys, build.ManifestFile)
	if errors.Is(err, disk.ErrNotExist) {
		return build.Manifest{}, ErrNothing
	}
	if err != nil {
		return build.Manifest{}, err
	}
	return build.ReadManifest(io.NewSectionReader(f, 0, f.Size()))
}

func open(fsys disk.Filesystem, path string) (disk.Sparse, error) {
	inode, err := disk.Lookup(fsys, []byte(path))
	if err != nil {
		return nil, err
	}
	if inode.Type() != disk.ModeRegular {
		return nil, fmt.Errorf("%s on the output disk is not a regular file", path)
	}
	return fsys.Open(inode.Ino)
}

func importImage(ctx context.Context, fsys disk.Filesystem, store *image.Store, m build.Manifest, i build.Image) (Image, error) {
	f, err := open(fsys, i.File)
	if err != nil {
		return Image{}, err
	}
	if f.Size() != i.Size {
		return Image{}, fmt.Errorf("its file has %d bytes, the manifest says %d", f.Size(), i.Size)
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f, 0, f.Size()), readSize)
	v, err := store.Import(ctx, i.Name, i.Version, r,
		image.Want{Size: i.Size, SHA256: i.SHA256},
		image.Meta{Origin: "builder", BuildID: m.BuildID, SpecDigest: m.SpecDigest, Built: m.FinishedAt})
	unchanged := errors.Is(err, image.ErrUnchanged)
	if err != nil && !unchanged {
		return Image{}, err
	}
	// The version may be there from this very build, when a harvest was cut off
	// before it was promoted. One from an earlier build stays what it is: it
	// may have been rolled back from on purpose.
	if unchanged && v.Meta.BuildID != m.BuildID {
		return Image{Version: v}, nil
	}
	if err := store.Promote(i.Name, v.ID); err != nil {
		return Image{}, err
	}
	return Image{Version: v, New: true}, nil
}
