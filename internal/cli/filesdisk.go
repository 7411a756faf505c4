package cli

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backupdisk"
	"github.com/drydock-vm/drydock/internal/config"
	"github.com/drydock-vm/drydock/internal/escape"
	"github.com/drydock-vm/drydock/internal/newimage"
)

// filesDisk shows a disk of which a backup has the files as the disk that
// restore --to-image would make: the bare filesystem. What it has beside content is
// kept at the path keep, and taken from there if it is there; "" keeps nothing.
func (a *app) filesDisk(ctx context.Context, src *opened, t target, keep string) (disk.Sparse, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("the backup has the files of disk %s: to make a disk of them gives files their owners, and takes root", t.disk)
	}
	c, err := config.Load(a.configPath)
	if err != nil {
		return nil, err
	}
	src.path = []byte(path.Clean(string(src.path)))
	tree, err := imageTree(t, src)
	if err != nil {
		return nil, err
	}
	opts, err := a.imageOptions(t, src, imageFlags{})
	if err != nil {
		return nil, err
	}
	opts.Damaged = func(path []byte, err error) {
		src.leftOut++
		fmt.Fprintf(a.stderr, "drydock: not on the disk, since it is damaged: %s: %s\n", escape.Bytes(path), escape.Line(err.Error()))
	}
	work := filepath.Join(c.State, "work")
	if err := os.MkdirAll(work, 0o700); err != nil {
		return nil, err
	}
	opts.Keep = keep
	var s *newimage.Skeleton
	if _, serr := os.Stat(keep); keep != "" && serr == nil {
		s, err = newimage.OpenSkeleton(ctx, tree, keep, opts)
	} else {
		s, err = newimage.MakeSkeleton(ctx, tree, filepath.Join(work, t.vm+"."+t.disk), opts)
	}
	if err != nil {
		return nil, err
	}
	d := backupdisk.New(s, tree)
	src.closers = append(src.closers, func() { d.Close() })
	return d, nil
}
