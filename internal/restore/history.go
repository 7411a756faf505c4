package restore

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/drydock-vm/drydock/internal/repository"
)

// OpenHistory opens several snapshots, which are sorted, the oldest first, as one
// filesystem: each is a folder of the root, called by its time as restic mount does
// ("2026-11-24T03:00:00+01:00", in local time, with "-1" and so on behind it where
// there are several), and the symlink "latest" leads to the last. A snapshot is not
// looked at before its folder is. Without any there is [ErrNoBackup]. What holds for
// [OpenTree] holds here too.
func OpenHistory(ctx context.Context, repo *repository.Repository, snapshots []*repository.Snapshot) (*Tree, error) {
	if len(snapshots) == 0 {
		return nil, none(nil)
	}
	var nodes []repository.Node
	names := map[string]int{}
	for _, s := range snapshots {
		name := s.Time.Local().Format(time.RFC3339)
		if n := names[name]; n > 0 {
			names[name]++
			name = fmt.Sprintf("%s-%d", name, n)
		}
		names[name]++
		nodes = append(nodes, repository.Node{
			Name: name, Type: repository.NodeDir, Mode: fs.ModeDir | 0o755,
			ModTime: s.Time, AccessTime: s.Time, ChangeTime: s.Time, Subtree: &s.Tree,
		})
	}
	link := nodes[len(nodes)-1]
	link.LinkTarget, link.Subtree = link.Name, nil
	link.Name, link.Type, link.Mode = Latest, repository.NodeSymlink, fs.ModeSymlink|0o777
	nodes = append(nodes, link)
	slices.SortFunc(nodes, func(a, b repository.Node) int { return cmp.Compare(a.Name, b.Name) })
	t := newTree(ctx, repo, link.ModTime, repository.ID{})
	t.history = nodes
	if err := t.load(); err != nil {
		return nil, fmt.Errorf("open backups: %w", err)
	}
	return t, nil
}
