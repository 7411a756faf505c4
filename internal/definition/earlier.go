package definition

import (
	"context"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
)

// earlier is what the parent snapshot has of the files of the host: those that have not
// changed since are not read again.
type earlier struct {
	files map[string]File // by path
	nodes map[string]*repository.Node
}

// load reads the definition of the parent. What cannot be read is read from the host
// again.
func load(ctx context.Context, repo *repository.Repository, parent *repository.Snapshot) *earlier {
	e := &earlier{map[string]File{}, map[string]*repository.Node{}}
	if parent == nil || !slices.Contains(parent.Tags, Tag) {
		return e
	}
	n := lookup(ctx, repo, parent.Tree, definitionPath)
	if n == nil {
		return e
	}
	text, err := repo.LoadSmall(ctx, n, maxDefinition)
	if err != nil {
		return e
	}
	d, err := Parse(text)
	if err != nil {
		return e
	}
	for _, f := range d.Files {
		if n := lookup(ctx, repo, parent.Tree, filesPath+f.Path); n != nil {
			e.files[f.Path], e.nodes[f.Path] = f, n
		}
	}
	return e
}

// find returns the content and the digest of a file that is the same to the size and
// both times; nil if it has to be read.
func (e *earlier) find(repo *repository.Repository, path string, info fs.FileInfo) (*repository.Node, string) {
	n := e.nodes[path]
	if n == nil || n.Type != repository.NodeFile || n.Size != uint64(info.Size()) || !n.ModTime.Equal(info.ModTime()) || !n.ChangeTime.Equal(changeTime(info)) {
		return nil, ""
	}
	var sum uint64
	for _, id := range n.Content {
		size, ok := repo.BlobSize(repository.DataBlob, id)
		if !ok {
			return nil, ""
		}
		sum += uint64(size)
	}
	if sum != n.Size || e.files[path].Size != info.Size() {
		return nil, ""
	}
	return n, e.files[path].SHA256
}

// changeTime is when a file, or its attributes, were changed: nobody can set it.
func changeTime(info fs.FileInfo) time.Time {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctim.Unix()).UTC()
	}
	return time.Time{}
}

// lookup returns the node at an absolute path of a tree, or nil.
func lookup(ctx context.Context, repo *repository.Repository, tree repository.ID, path string) *repository.Node {
	var found *repository.Node
	at := &tree
	for name := range strings.SplitSeq(path[1:], "/") {
		if at == nil {
			return nil
		}
		list, err := repo.Children(ctx, *at, name)
		if err != nil || list[0] == nil {
			return nil
		}
		found = list[0]
		at = found.Subtree
	}
	return found
}
