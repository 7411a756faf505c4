package verify

import (
	"context"
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/internal/repository"
)

const (
	// maxDepth and maxPath are how deep folders are followed to name what is
	// damaged in them: as deep as backups and restores go.
	maxDepth = 2048
	maxPath  = 64 << 10 // bytes
	// maxNamedBytes bounds all paths of a report. Guests choose how long they are.
	maxNamedBytes = 16 << 20
)

// errEnough stops the naming in one backup.
var errEnough = errors.New("enough is named")

// name finds out which files of which backups the lost blobs hit.
func (c *checker) name(ctx context.Context, snapshots []*repository.Snapshot) error {
	n := &namer{checker: c, ctx: ctx, whole: map[repository.ID]bool{}}
	for _, s := range snapshots {
		n.backup = &Backup{ID: s.ID, VM: s.Hostname, Time: s.Time}
		c.report.Backups = append(c.report.Backups, n.backup)
		if !c.lost.any() && !c.hit.Load() {
			continue
		}
		if err := n.folder([]byte("/"), s.Tree, 0); err != nil && !errors.Is(err, errEnough) {
			return err
		}
	}
	return nil
}

// namer walks backups in which something is lost.
type namer struct {
	*checker
	ctx    context.Context
	whole  map[repository.ID]bool // folders without damage, which backups share
	backup *Backup
	bytes  int // of the paths that were named
}

// damaged names a file or folder.
func (n *namer) damaged(path []byte, err error) error {
	n.bytes += len(path)
	if len(n.backup.Damaged) == maxFiles || len(n.backup.Damaged) > 0 && n.bytes > maxNamedBytes {
		n.backup.More = true
		return errEnough
	}
	n.backup.Damaged = append(n.backup.Damaged, File{path, err})
	return nil
}

// folder names what is damaged in a folder and below it. Path ends with a slash.
func (n *namer) folder(path []byte, id repository.ID, depth int) error {
	if n.whole[id] {
		return nil
	}
	if depth > maxDepth || len(path) > maxPath {
		return n.damaged(path, fmt.Errorf("%w: it lies more than %d folders deep, or its path has more than %d bytes", repository.ErrLimit, maxDepth, maxPath))
	}
	if err := n.lost.find(repository.Blob{Type: repository.TreeBlob, ID: id}); err != nil {
		return n.damaged(path, err)
	}
	before := len(n.backup.Damaged)
	below, err := n.files(path, id)
	if err != nil {
		return err
	}
	for _, b := range below {
		if err := n.folder(join(path, b.name, "/"), b.tree, depth+1); err != nil {
			return err
		}
	}
	if len(n.backup.Damaged) == before {
		n.whole[id] = true
	}
	return nil
}

// subfolder is a folder in a folder.
type subfolder struct {
	name string
	tree repository.ID
}

// files names the damaged files of a folder, and returns the folders in it.
func (n *namer) files(path []byte, id repository.ID) (below []subfolder, err error) {
	tree, err := n.repo.LoadTree(n.ctx, id)
	if err != nil {
		if !repository.IsDamage(err) {
			return nil, err
		}
		return nil, n.damaged(path, err)
	}
	file := fileCheck{checker: n.checker}
	return below, tree.WalkPieces(func(id repository.ID) error {
		file.piece(repository.Blob{Type: repository.DataBlob, ID: id})
		return nil
	}, func(node *repository.Node) error {
		if node.Subtree != nil {
			below = append(below, subfolder{node.Name, *node.Subtree})
		}
		if err := file.end(node); err != nil {
			return n.damaged(join(path, node.Name, ""), err)
		}
		return nil
	})
}

func join(path []byte, name, end string) []byte {
	return append(append(append(make([]byte, 0, len(path)+len(name)+len(end)), path...), name...), end...)
}
