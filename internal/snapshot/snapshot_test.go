package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/snapshot"
	"github.com/drydock-vm/drydock/internal/testmount"
)

const diskSize = 4 << 20

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func mountXFS(t *testing.T) string   { return testmount.New(t, "320M", "mkfs.xfs", "-q", "-f") }
func mountBtrfs(t *testing.T) string { return testmount.New(t, "128M", "mkfs.btrfs", "-q", "-f") }
func mountExt4(t *testing.T) string  { return testmount.New(t, "32M", "mkfs.ext4", "-q", "-F") }

// newDisk makes a disk full of fill.
func newDisk(t *testing.T, dir, format string, fill byte) string {
	t.Helper()
	path := filepath.Join(dir, "disk."+format)
	run(t, "qemu-img", "create", "-q", "-f", format, path, "4M")
	write(t, path, format, fill)
	return path
}

func write(t *testing.T, path, format string, fill byte) {
	t.Helper()
	run(t, "qemu-io", "-f", format, "-c", fmt.Sprintf("write -q -P %d 0 4M", fill), path)
}

// content reads a source with the real qemu-img.
func content(t *testing.T, src snapshot.Source) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "content")
	args := []string{"convert", "-U", "-f", src.Format, "-O", "raw"}
	if src.QCOW2Snapshot != "" {
		args = append(args, "-l", "snapshot.name="+src.QCOW2Snapshot)
	}
	run(t, "qemu-img", append(args, src.Path, out)...)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantFill(t *testing.T, src snapshot.Source, fill byte) {
	t.Helper()
	if got := content(t, src); !bytes.Equal(got, bytes.Repeat([]byte{fill}, diskSize)) {
		t.Errorf("%+v: %d bytes that start with %x, want all %x", src, len(got), got[:min(4, len(got))], fill)
	}
}

func take(t *testing.T, s *snapshot.Snapshotter, d snapshot.Disk, name string) snapshot.Snapshot {
	t.Helper()
	snap, err := s.Take(context.Background(), d, name)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func leftovers(t *testing.T, s *snapshot.Snapshotter, d snapshot.Disk) []snapshot.Snapshot {
	t.Helper()
	found, err := s.Leftovers(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func release(t *testing.T, s *snapshot.Snapshotter, snap snapshot.Snapshot, live snapshot.LiveDeleter) {
	t.Helper()
	if err := s.Release(context.Background(), snap, live); err != nil {
		t.Fatal(err)
	}
}

// The contract that each kind fulfils: what was planned is what is taken, it
// keeps its content while a VM writes on, taking and dropping twice is no error.
func TestKinds(t *testing.T) {
	tmp := func(t *testing.T) string { return t.TempDir() }
	for _, tc := range []struct {
		name   string
		dir    func(*testing.T) string
		format string
		want   snapshot.Kind
	}{
		{"reflink on XFS", mountXFS, "raw", snapshot.Reflink},
		{"reflink on btrfs", mountBtrfs, "qcow2", snapshot.Reflink},
		{"reflink on btrfs without copy-on-write", noCOW(mountBtrfs), "raw", snapshot.Reflink},
		{"qcow2 on ext4", mountExt4, "qcow2", snapshot.QCOW2},
		{"qcow2 here", tmp, "qcow2", snapshot.QCOW2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, s := context.Background(), snapshot.New(snapshot.Options{})
			d := snapshot.Disk{Path: newDisk(t, tc.dir(t), tc.format, 1), Format: tc.format, Kind: snapshot.Auto}
			plan, err := s.Plan(ctx, d)
			if err != nil || plan.Kind != tc.want || plan.Reason == "" {
				t.Fatalf("Plan says %+v, %v; want %s", plan, err, tc.want)
			}
			snap := take(t, s, d, "r1")
			if snap.Kind != plan.Kind || snap.Reason != plan.Reason {
				t.Errorf("took %+v, but the plan was %+v", snap, plan)
			}
			vm := startVM(t, d)
			vm.write(2)
			wantFill(t, snap.Source(), 1)
			wantFill(t, snapshot.Source{Path: d.Path, Format: d.Format}, 2)
			if _, err := s.Take(ctx, d, "r2"); !errors.Is(err, imagelock.ErrInUse) {
				t.Errorf("taking a snapshot while the VM runs: %v", err)
			}
			vm.quit()

			again := take(t, s, d, "r1") // the one that is there
			wantFill(t, again.Source(), 1)
			take(t, s, d, "r2")
			if found := leftovers(t, s, d); len(found) != 2 || found[0].Name != "r1" || found[1].Name != "r2" {
				t.Errorf("found %+v, want r1 and r2", found)
			}
			for _, snap := range leftovers(t, s, d) {
				release(t, s, snap, nil)
				release(t, s, snap, nil)
			}
			if found := leftovers(t, s, d); len(found) != 0 {
				t.Errorf("after all are dropped there are %+v", found)
			}
			wantFill(t, snapshot.Source{Path: d.Path, Format: d.Format}, 2)
			if tc.format == "qcow2" {
				run(t, "qemu-img", "check", "-q", "-f", "qcow2", d.Path)
			}
		})
	}
}

// noCOW turns copy-on-write off for new files in a folder.
func noCOW(mount func(*testing.T) string) func(*testing.T) string {
	return func(t *testing.T) string {
		dir := mount(t)
		run(t, "chattr", "+C", dir)
		return dir
	}
}

func TestNoneOnExt4(t *testing.T) {
	ctx, s := context.Background(), snapshot.New(snapshot.Options{})
	d := snapshot.Disk{Path: newDisk(t, mountExt4(t), "raw", 1), Format: "raw", Kind: snapshot.Auto}
	plan, err := s.Plan(ctx, d)
	if err != nil || plan.Kind != snapshot.None || !strings.Contains(plan.Reason, "stays down during the backup") {
		t.Fatalf("Plan says %+v, %v", plan, err)
	}
	snap := take(t, s, d, "r1")
	wantFill(t, snap.Source(), 1)
	release(t, s, snap, nil)
	wantFill(t, snap.Source(), 1)

	vm := startVM(t, d)
	if _, err := s.Take(ctx, d, "r1"); !errors.Is(err, imagelock.ErrInUse) {
		t.Errorf("a disk that is read as it is, while the VM runs: %v", err)
	}
	vm.quit()
}

func TestInsistingOnAKind(t *testing.T) {
	ctx, s := context.Background(), snapshot.New(snapshot.Options{})
	path := newDisk(t, mountExt4(t), "raw", 1)
	for _, k := range []snapshot.Kind{snapshot.Reflink, snapshot.QCOW2, "zfs"} {
		d := snapshot.Disk{Path: path, Format: "raw", Kind: k}
		if _, err := s.Plan(ctx, d); !errors.Is(err, snapshot.ErrNotPossible) {
			t.Errorf("Plan with %s: %v", k, err)
		}
		if _, err := s.Take(ctx, d, "r1"); !errors.Is(err, snapshot.ErrNotPossible) {
			t.Errorf("Take with %s: %v", k, err)
		}
	}
	d := snapshot.Disk{Path: newDisk(t, t.TempDir(), "qcow2", 1), Format: "qcow2", Kind: snapshot.None}
	if plan, err := s.Plan(ctx, d); err != nil || plan.Kind != snapshot.None {
		t.Errorf("Plan with none: %+v, %v", plan, err)
	}
	d.Path += ".missing"
	if _, err := s.Plan(ctx, d); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Plan for a missing disk: %v", err)
	}
}

// What a qcow2 image cannot do is a reason, and auto goes on to the next kind.
func TestFallsThrough(t *testing.T) {
	ctx, s := context.Background(), snapshot.New(snapshot.Options{})
	dir := mountExt4(t)
	path := filepath.Join(dir, "disk")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+filepath.Join(dir, "data"), path, "4M")
	d := snapshot.Disk{Path: path, Format: "qcow2", Kind: snapshot.Auto}
	snap, err := s.Take(ctx, d, "r1")
	if err != nil || snap.Kind != snapshot.None || !strings.Contains(snap.Reason, "external data file") {
		t.Errorf("took %+v, %v", snap, err)
	}
}

func TestInternalSnapshotOfRunningVM(t *testing.T) {
	ctx, s := context.Background(), snapshot.New(snapshot.Options{})
	d := snapshot.Disk{Path: newDisk(t, t.TempDir(), "qcow2", 1), Format: "qcow2", Kind: snapshot.QCOW2}
	snap := take(t, s, d, "r1")
	vm := startVM(t, d)
	if err := s.Release(ctx, snap, nil); !errors.Is(err, imagelock.ErrInUse) {
		t.Errorf("dropping it with nobody to ask: %v", err)
	}
	if err := s.Release(ctx, snap, vm); err != nil {
		t.Fatal(err)
	}
	if found := leftovers(t, s, d); len(found) != 0 {
		t.Errorf("after it was dropped through QMP there are %+v", found)
	}
	vm.write(3)
	vm.quit()
	wantFill(t, snapshot.Source{Path: d.Path, Format: d.Format}, 3)
	run(t, "qemu-img", "check", "-q", "-f", "qcow2", d.Path)
}

// Only what drydock made is deleted.
func TestDeletesOnlyItsOwn(t *testing.T) {
	ctx, s, dir := context.Background(), snapshot.New(snapshot.Options{}), mountXFS(t)
	path := newDisk(t, dir, "qcow2", 1)
	run(t, "qemu-img", "snapshot", "-c", "mine", path)
	others := []string{"disk.qcow2.bak", "disk.qcow2.drydock-", "disk.qcow2.drydock-a.b", "other.drydock-r1"}
	for _, name := range others {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A copy that was cut short is drydock's, and goes.
	part := filepath.Join(dir, "disk.qcow2.drydock-r1.part")
	if err := os.WriteFile(part, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := snapshot.Disk{Path: path, Format: "qcow2", Kind: snapshot.Auto}
	take(t, s, d, "r1")
	if err := os.WriteFile(part, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, snap := range leftovers(t, s, d) {
		release(t, s, snap, nil)
	}
	if _, err := os.Stat(part); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the unfinished copy: %v", err)
	}
	for _, name := range others {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if out, err := exec.Command("qemu-img", "snapshot", "-l", path).Output(); err != nil || !bytes.Contains(out, []byte("mine")) {
		t.Errorf("the snapshot of the user is gone: %s %v", out, err)
	}
	for _, name := range []string{"", "../x", "a/b", "a b", "r1.part", strings.Repeat("x", 65)} {
		if _, err := s.Take(ctx, d, name); !errors.Is(err, snapshot.ErrName) {
			t.Errorf("taking %q: %v", name, err)
		}
		if err := s.Release(ctx, snapshot.Snapshot{Kind: snapshot.Reflink, Path: path, Name: name}, nil); !errors.Is(err, snapshot.ErrName) {
			t.Errorf("dropping %q: %v", name, err)
		}
	}
}

// The copy lies beside the disk itself, not beside a link to it.
func TestSymlinkedDisk(t *testing.T) {
	s, dir := snapshot.New(snapshot.Options{}), mountXFS(t)
	path := newDisk(t, dir, "raw", 1)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	d := snapshot.Disk{Path: link, Format: "raw", Kind: snapshot.Reflink}
	snap := take(t, s, d, "r1")
	copied := path + ".drydock-r1"
	if snap.Path != path || snap.Source().Path != copied {
		t.Fatalf("took %+v, want it at %s", snap, copied)
	}
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy: %v, %v", info, err)
	}
	release(t, s, snap, nil)
}

// A disk that was removed has no snapshots to drop.
func TestReleaseAfterTheDisk(t *testing.T) {
	s := snapshot.New(snapshot.Options{})
	d := snapshot.Disk{Path: newDisk(t, t.TempDir(), "qcow2", 1), Format: "qcow2", Kind: snapshot.QCOW2}
	snap := take(t, s, d, "r1")
	if err := os.RemoveAll(filepath.Dir(d.Path)); err != nil {
		t.Fatal(err)
	}
	release(t, s, snap, nil)
	release(t, s, snapshot.Snapshot{Kind: snapshot.Reflink, Name: "r1", Path: d.Path}, nil)
	release(t, s, snapshot.Snapshot{Kind: snapshot.None, Name: "r1", Path: d.Path}, nil)
}
