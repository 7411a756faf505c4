package restore_test

import (
	"testing"

	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/testrepo"
)

// repo is a repository that the real restic can open.
type repo struct{ testrepo.Repo }

func newRepo(t *testing.T) repo { return repo{testrepo.New(t)} }

// backup lets the real restic back a folder up, as the content of the root
// directory, and returns the snapshot.
func (r repo) backup(t *testing.T, dir string, args ...string) *repository.Snapshot {
	t.Helper()
	r.ResticIn(t, dir, append([]string{"backup", "--host", "web", "--tag", "drydock", "."}, args...)...)
	all, err := r.Snapshots(t.Context())
	if err != nil || len(all) == 0 {
		t.Fatalf("snapshots: %d, %v", len(all), err)
	}
	return all[len(all)-1]
}
