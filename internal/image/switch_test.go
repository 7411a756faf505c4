package image_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/image"
	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// newRoot makes a root disk full of fill, and returns its path.
func newRoot(t *testing.T, dir, format, size string, fill byte) string {
	t.Helper()
	path := filepath.Join(dir, "root."+format)
	run(t, "qemu-img", "create", "-q", "-f", format, path, size)
	run(t, "qemu-io", "-f", format, "-c", fmt.Sprintf("write -q -P %d 0 64k", fill), path)
	return path
}

// content is what a guest would see, read by the real qemu-img.
func content(t *testing.T, path, format string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "content")
	run(t, "qemu-img", "convert", "-f", format, "-O", "raw", path, out)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantDisk checks that the disk starts with fill.
func wantDisk(t *testing.T, path, format string, fill byte) {
	t.Helper()
	if got := content(t, path, format); got[0] != fill || got[1<<16-1] != fill {
		t.Errorf("%s starts with %d, want %d", path, got[0], fill)
	}
}

func wantStage(t *testing.T, s *image.Store, path string, want image.Stage) {
	t.Helper()
	if got, err := s.Stage(path); err != nil || got != want {
		t.Errorf("the stage is %s, %v; want %s", got, err, want)
	}
}

func prepare(t *testing.T, s *image.Store, v image.Version, path, format string) {
	t.Helper()
	if err := s.Prepare(ctx, v, image.Target{Path: path, Format: format}); err != nil {
		t.Fatal(err)
	}
}

func TestPrepareSwitchUndoCommit(t *testing.T) {
	xfs := testmount.New(t, "320M", "mkfs.xfs", "-q", "-f")
	for _, tc := range []struct{ name, format, dir, store, size string }{
		{"raw copy", "raw", t.TempDir(), "", "1M"},
		{"raw reflink", "raw", xfs, filepath.Join(xfs, "images"), "1M"},
		{"raw, larger before", "raw", filepath.Join(t.TempDir()), "", "8M"},
		{"qcow2", "qcow2", t.TempDir(), "", "1M"},
		{"qcow2, larger before", "qcow2", t.TempDir(), "", "8M"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := newStore(t)
			if tc.store != "" {
				s = storeIn(tc.store)
			}
			v := load(t, s, "7", disk(7))
			path := newRoot(t, tc.dir, tc.format, tc.size, 1)
			if err := errors.Join(os.Chmod(path, 0o640), os.Chown(path, 12, 34)); err != nil {
				t.Fatal(err)
			}
			prepare(t, s, v, path, tc.format)
			wantStage(t, s, path, image.Prepared)
			wantDisk(t, path, tc.format, 1)

			if err := s.Switch(path); err != nil {
				t.Fatal(err)
			}
			wantStage(t, s, path, image.Switched)
			if ok, err := s.Switched(path, v); !ok || err != nil {
				t.Errorf("switched to %s: %v, %v", v, ok, err)
			}
			got, want := content(t, path, tc.format), disk(7)
			if tc.size == "8M" {
				want = append(want, make([]byte, 5<<20)...)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("the new disk has %d bytes that differ from the %d it should have", len(got), len(want))
			}
			wantDisk(t, path+".previous", tc.format, 1)
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != nil || st.Mode&0o777 != 0o640 || st.Uid != 12 || st.Gid != 34 {
				t.Errorf("the new disk has mode %o, owner %d:%d, %v", st.Mode&0o777, st.Uid, st.Gid, err)
			}

			for range 2 { // the second does nothing
				if err := s.Undo(path); err != nil {
					t.Fatal(err)
				}
				wantStage(t, s, path, image.Idle)
				wantDisk(t, path, tc.format, 1)
			}
			if err := s.Switch(path); !errors.Is(err, image.ErrNotPrepared) {
				t.Errorf("switching with nothing prepared: %v", err)
			}

			prepare(t, s, v, path, tc.format)
			if err := errors.Join(s.Switch(path), s.Commit("vm", "root", path, v), s.Undo(path)); err != nil {
				t.Fatal(err)
			}
			wantStage(t, s, path, image.Idle)
			wantDisk(t, path, tc.format, 7)
			wantDisk(t, path+".previous", tc.format, 1)
		})
	}
}

// A switch of last week must not be undone by a round that did not switch.
func TestUndoWithoutSwitch(t *testing.T) {
	s, _ := newStore(t)
	path := newRoot(t, t.TempDir(), "raw", "1M", 1)
	v7, v8 := load(t, s, "7", disk(7)), load(t, s, "8", disk(8))
	prepare(t, s, v7, path, "raw")
	if err := errors.Join(s.Switch(path), s.Commit("vm", "root", path, v7), s.Undo(path)); err != nil {
		t.Fatal(err)
	}
	wantDisk(t, path, "raw", 7)
	prepare(t, s, v8, path, "raw")
	if ok, err := s.Switched(path, v8); ok || err != nil {
		t.Errorf("prepared only, and switched is %v, %v", ok, err)
	}
	if err := s.Undo(path); err != nil {
		t.Fatal(err)
	}
	wantDisk(t, path, "raw", 7)
	wantStage(t, s, path, image.Prepared)
	for range 2 {
		if err := s.Discard(path); err != nil {
			t.Fatal(err)
		}
		wantStage(t, s, path, image.Idle)
	}
	wantDisk(t, path, "raw", 7)
	wantFiles(t, filepath.Dir(path), "root.raw", "root.raw.previous")
}

func TestSwitchOnlyWhatIsOnRecord(t *testing.T) {
	s, _ := newStore(t)
	path := newRoot(t, t.TempDir(), "raw", "1M", 1)
	if err := os.WriteFile(path+".next", disk(9), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Switch(path); !errors.Is(err, image.ErrNotPrepared) {
		t.Errorf("switching to somebody's file: %v", err)
	}
	wantDisk(t, path, "raw", 1)
}

func TestSwitchOfDiskInUse(t *testing.T) {
	s, _ := newStore(t)
	path := newRoot(t, t.TempDir(), "qcow2", "1M", 1)
	v := load(t, s, "7", disk(7))
	prepare(t, s, v, path, "qcow2")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	writer, err := imagelock.Acquire(f, imagelock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Switch(path); !errors.Is(err, imagelock.ErrInUse) {
		t.Errorf("switching a disk in use: %v", err)
	}
	wantStage(t, s, path, image.Prepared)
	if err := writer.Release(); err != nil {
		t.Fatal(err)
	}
	// A backup that reads the disk does not stand in the way.
	if _, err := imagelock.Acquire(f, imagelock.ReadShared); err != nil {
		t.Fatal(err)
	}
	if err := s.Switch(path); err != nil {
		t.Fatal(err)
	}
}

func TestSwitchBehindSymlink(t *testing.T) {
	s, _ := newStore(t)
	dir := t.TempDir()
	path := newRoot(t, dir, "raw", "1M", 1)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	prepare(t, s, load(t, s, "7", disk(7)), link, "raw")
	if err := s.Switch(link); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, "root.raw", "root.raw.previous")
	wantDisk(t, link, "raw", 7)
	if target, err := os.Readlink(link); err != nil || target != path {
		t.Errorf("the link points to %s, %v", target, err)
	}
	if err := s.Undo(link); err != nil {
		t.Fatal(err)
	}
	wantDisk(t, path, "raw", 1)
}

// A store that was damaged is found out before a VM gets the disk.
func TestPrepareChecksTheDigest(t *testing.T) {
	for _, format := range []string{"raw", "qcow2"} {
		t.Run(format, func(t *testing.T) {
			s, _ := newStore(t)
			v := load(t, s, "7", disk(7))
			dir := t.TempDir()
			path := newRoot(t, dir, format, "1M", 1)
			for _, damage := range []func(f *os.File) error{
				func(f *os.File) error { _, err := f.WriteAt([]byte{1}, 2<<20); return err },
				func(f *os.File) error { return f.Truncate(2 << 20) },
				func(f *os.File) error { return f.Truncate(4 << 20) },
			} {
				f, err := os.OpenFile(s.DiskPath(v), os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(damage(f), f.Close()); err != nil {
					t.Fatal(err)
				}
				err = s.Prepare(ctx, v, image.Target{Path: path, Format: format})
				if !errors.Is(err, image.ErrDigest) && !errors.Is(err, image.ErrSize) {
					t.Errorf("got %v", err)
				}
				wantFiles(t, dir, filepath.Base(path))
			}
		})
	}
}

func TestPrepareDiskFull(t *testing.T) {
	for _, format := range []string{"raw", "qcow2"} {
		t.Run(format, func(t *testing.T) {
			s, _ := newStore(t)
			content := bytes.Repeat([]byte("full"), 4<<20) // 16 MiB without a hole
			v := load(t, s, "7", content)
			dir := testmount.New(t, "12M", "mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal")
			path := newRoot(t, dir, format, "1M", 1)
			before := files(t, dir)
			err := s.Prepare(ctx, v, image.Target{Path: path, Format: format})
			var space *image.SpaceError
			if !errors.As(err, &space) || !errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want a SpaceError", err)
			}
			wantFiles(t, dir, before...)
			wantDisk(t, path, format, 1)
		})
	}
}

func TestPrepareRefuses(t *testing.T) {
	s, _ := newStore(t)
	v := load(t, s, "7", disk(7))
	path := newRoot(t, t.TempDir(), "raw", "1M", 1)
	for _, target := range []image.Target{
		{Path: path + ".missing", Format: "raw"},
		{Path: filepath.Dir(path), Format: "raw"},
		{Path: "/dev/null", Format: "raw"},
		{Path: path, Format: "qcow2"},
		{Path: path, Format: "vmdk"},
	} {
		if err := s.Prepare(ctx, v, target); err == nil {
			t.Errorf("%+v was prepared", target)
		}
	}
	wantFiles(t, filepath.Dir(path), "root.raw")
}

// A real QEMU starts on the disk that a switch made, which is whole.
func TestQEMUOpensTheNewDisk(t *testing.T) {
	s, _ := newStore(t)
	path := newRoot(t, t.TempDir(), "qcow2", "8M", 1)
	prepare(t, s, load(t, s, "7", disk(7)), path, "qcow2")
	if err := s.Switch(path); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "check", "-q", "-f", "qcow2", path)
	cmd := exec.Command("qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-display", "none", "-S",
		"-monitor", "stdio", "-drive", "if=virtio,format=qcow2,file="+path)
	cmd.Stdin = strings.NewReader("quit\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
