package backup_test

import (
	"context"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/garbage"
	"github.com/drydock-vm/drydock/internal/repository"
	"github.com/drydock-vm/drydock/internal/repository/backend/local"
	"github.com/drydock-vm/drydock/internal/repository/testrepo"
	"github.com/drydock-vm/drydock/internal/sandbox"
)

// The test program is also the worker that reads disks, and with measuredVerb a
// program that backs one disk up, to be measured from outside.
const measuredVerb = "measured-backup"

func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == sandbox.Verb:
		os.Exit(sandbox.WorkerMain())
	case len(os.Args) == 4 && os.Args[1] == measuredVerb:
		if err := measured(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// measured backs a disk up to a repository, and prints the most memory that it and
// the worker had.
func measured(image, to string) error {
	if profile := os.Getenv("DRYDOCK_BENCH_PROFILE"); profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	garbage.Bound(garbage.Spare)
	ctx := context.Background()
	repo, err := repository.Open(ctx, local.New(to), []byte(testrepo.Password), repository.Options{})
	if err != nil {
		return err
	}
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	format := sandbox.Raw
	if strings.HasSuffix(image, ".qcow2") {
		format = sandbox.Qcow2
	}
	r, err := sandbox.Start(ctx, sandbox.Options{AllowWithout: sandbox.Measures()}, sandbox.DiskSpec{Name: "disk", File: f, Format: format})
	if err != nil {
		return err
	}
	fsys, err := r.Filesystem(ctx, "disk")
	if err != nil {
		return err
	}
	rep, err := backup.Run(ctx, repo, []backup.Source{{Disk: "disk", Mount: "/", DeviceID: 1, FS: fsys}}, backup.Options{VM: "web", Time: time.Now()})
	if err != nil {
		return err
	}
	r.Close()
	var self, worker unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &self); err != nil {
		return err
	}
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &worker); err != nil {
		return err
	}
	fmt.Printf("%d files new, %d the same; %d MB of memory, and %d MB of the worker\n",
		rep.FilesNew, rep.FilesUnchanged, self.Maxrss>>10, worker.Maxrss>>10)
	return nil
}
