package qemuimg_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/imagelock"
	"github.com/drydock-vm/drydock/internal/qemuimg"
)

// awkward is a file name that is special to qemu-img in more than one way.
const awkward = `a,b=c:d "e" -f raw.qcow2`

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func newQCOW2(t *testing.T, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), awkward)
	run(t, "qemu-img", append(append([]string{"create", "-q", "-f", "qcow2"}, args...), path, "4M")...)
	return path
}

func TestSnapshotsAndSize(t *testing.T) {
	ctx, tool, path := context.Background(), qemuimg.New(qemuimg.Options{}), newQCOW2(t)
	for _, name := range []string{"one", "two"} {
		if err := tool.CreateSnapshot(ctx, path, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := tool.DeleteSnapshot(ctx, path, "one"); err != nil {
		t.Fatal(err)
	}
	if err := tool.Resize(ctx, path, 8<<20); err != nil {
		t.Fatal(err)
	}
	info, err := tool.Info(ctx, path)
	if err != nil || info.VirtualSize != 8<<20 || !slices.Equal(info.Snapshots, []string{"two"}) {
		t.Fatalf("Info says %+v, %v", info, err)
	}
	header, err := qemuimg.ReadHeader(path)
	if err != nil || header.VirtualSize != 8<<20 || header.ExternalData {
		t.Fatalf("ReadHeader says %+v, %v", header, err)
	}
}

// TestBitmaps: a bitmap that is added records what QEMU writes.
func TestBitmaps(t *testing.T) {
	ctx, tool, path := context.Background(), qemuimg.New(qemuimg.Options{}), newQCOW2(t)
	for _, name := range []string{"one", "two"} {
		if err := tool.AddBitmap(ctx, path, name, 64<<10); err != nil {
			t.Fatal(err)
		}
	}
	if err := tool.RemoveBitmap(ctx, path, "one"); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("qemu-img", "info", "--output=json", path).Output()
	if err != nil || strings.Contains(string(out), `"one"`) || !strings.Contains(string(out), `"two"`) || !strings.Contains(string(out), "auto") {
		t.Errorf("qemu-img info says %s, %v", out, err)
	}
	if info, err := tool.Info(ctx, path); err != nil || !slices.Equal(info.Bitmaps, []string{"two"}) {
		t.Errorf("Info says %+v, %v", info, err)
	}
	var failed *qemuimg.Error
	if err := tool.AddBitmap(ctx, path, "two", 64<<10); !errors.As(err, &failed) {
		t.Errorf("a bitmap that is there: %v", err)
	}
	if err := tool.RemoveBitmap(ctx, path, "one"); !errors.As(err, &failed) {
		t.Errorf("a bitmap that is gone: %v", err)
	}
}

func TestErrors(t *testing.T) {
	ctx, tool, path := context.Background(), qemuimg.New(qemuimg.Options{}), newQCOW2(t)
	var failed *qemuimg.Error
	err := tool.DeleteSnapshot(ctx, path, "missing")
	if !errors.As(err, &failed) || failed.Message == "" || strings.Contains(err.Error(), "\n") {
		t.Errorf("deleting a snapshot that is not there: %v", err)
	}
	// While somebody holds the image, nothing is changed.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := imagelock.Acquire(f, imagelock.ReadShared); err != nil {
		t.Fatal(err)
	}
	if err := tool.CreateSnapshot(ctx, path, "one"); !errors.As(err, &failed) {
		t.Errorf("a snapshot of an image in use: %v", err)
	}
	if _, err := tool.Info(ctx, path); err != nil {
		t.Errorf("Info of an image in use: %v", err)
	}
	tool = qemuimg.New(qemuimg.Options{Program: "no-such-qemu-img"})
	if err := tool.CreateSnapshot(ctx, path, "one"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("without the program: %v", err)
	}
}

func TestDeadline(t *testing.T) {
	slow := filepath.Join(t.TempDir(), "slow")
	if err := os.WriteFile(slow, []byte("#!/bin/sh\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	tool := qemuimg.New(qemuimg.Options{Program: slow, Timeout: 10 * time.Millisecond})
	if err := tool.CreateSnapshot(context.Background(), newQCOW2(t), "one"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that does not end: %v", err)
	}
}

// An image must not make the host open a file that it names.
func TestOpensNoNamedFile(t *testing.T) {
	ctx, tool := context.Background(), qemuimg.New(qemuimg.Options{})
	backed := newQCOW2(t, "-u", "-b", "/no/such/file", "-F", "raw")
	if err := tool.CreateSnapshot(ctx, backed, "one"); err != nil {
		t.Errorf("a snapshot of an image whose backing file is missing: %v", err)
	}
	if info, err := tool.Info(ctx, backed); err != nil || !slices.Equal(info.Snapshots, []string{"one"}) {
		t.Errorf("Info says %+v, %v", info, err)
	}
	external := newQCOW2(t, "-o", "data_file="+filepath.Join(t.TempDir(), "data"))
	if err := tool.CreateSnapshot(ctx, external, "one"); !errors.Is(err, qemuimg.ErrExternalData) {
		t.Errorf("an image with an external data file: %v", err)
	}
	raw := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(raw, bytes.Repeat([]byte{1}, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tool.Info(ctx, raw); !errors.Is(err, qemuimg.ErrNotQCOW2) {
		t.Errorf("a raw image that is declared as qcow2: %v", err)
	}
}

func TestConvertRaw(t *testing.T) {
	ctx, tool, dir := context.Background(), qemuimg.New(qemuimg.Options{}), t.TempDir()
	raw, qcow2, back := filepath.Join(dir, awkward), filepath.Join(dir, "out.qcow2"), filepath.Join(dir, "back")
	// A raw disk that starts like a qcow2 image stays what it is declared as.
	content := append([]byte("QFI\xfb\x00\x00\x00\x03"), bytes.Repeat([]byte{7}, 1<<20-8)...)
	if err := os.WriteFile(raw, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tool.ConvertRaw(ctx, raw, qcow2); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", qcow2, back)
	got, err := os.ReadFile(back)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("what came back differs: %d bytes, %v", len(got), err)
	}
}
