package qcow2_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/qcow2"
)

// span is a range of the disk: offset and length.
type span [2]int64

// dirtyRanges opens an image in memory and collects what a bitmap says.
func dirtyRanges(image []byte, name string) ([]span, error) {
	return dirtyFrom(bytes.NewReader(image), int64(len(image)), name)
}

func dirtyFrom(r io.ReaderAt, size int64, name string) ([]span, error) {
	im, err := qcow2.Open(r, size, qcow2.Options{})
	if err != nil {
		return nil, err
	}
	return collectDirty(im, name)
}

func collectDirty(im *qcow2.Image, name string) (list []span, err error) {
	next := int64(-1)
	err = im.DirtyRanges(name, func(off, length int64) error {
		if off <= next || length <= 0 || length > im.Size()-off {
			return fmt.Errorf("%d bytes at %d, after %d, of %d", length, off, next, im.Size())
		}
		next = off + length
		list = append(list, span{off, length})
		return nil
	})
	return list, err
}

// qemuBitmaps is what `qemu-img info` says of the bitmaps.
func qemuBitmaps(t *testing.T, path string) (list []qcow2.Bitmap) {
	t.Helper()
	var info struct {
		Specific struct {
			Data struct {
				Bitmaps []struct {
					Name        string
					Granularity int64
					Flags       []string
				}
			}
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(disktest.Run(t, "qemu-img", "info", "--output=json", path), &info); err != nil {
		t.Fatal(err)
	}
	for _, b := range info.Specific.Data.Bitmaps {
		state := qcow2.BitmapConsistent
		if slices.Contains(b.Flags, "in-use") {
			state = qcow2.BitmapInUse
		}
		list = append(list, qcow2.Bitmap{Name: b.Name, Granularity: b.Granularity, State: state, Auto: slices.Contains(b.Flags, "auto")})
	}
	return list
}

// checkBitmaps compares the list of bitmaps with QEMU's.
func checkBitmaps(t *testing.T, im *qcow2.Image, path string) {
	t.Helper()
	got, err := im.Bitmaps()
	if err != nil {
		t.Fatal(err)
	}
	want := qemuBitmaps(t, path)
	same := slices.EqualFunc(got, want, func(a, b qcow2.Bitmap) bool {
		return a.Name == b.Name && a.Granularity == b.Granularity && a.State == b.State && a.Auto == b.Auto && a.TableBytes > 0
	})
	if !same || im.Info().Bitmaps != len(want) {
		t.Errorf("bitmaps\n got %+v\nwant %+v", got, want)
	}
}

// qemuDirty is what a client of qemu-nbd sees of a bitmap. `qemu-img map` shows it
// in place of what is allocated, and what is dirty as no data.
func qemuDirty(t *testing.T, path, name string) (list []span) {
	t.Helper()
	socket := serveNBD(t, path, "-B", name)
	var extents []struct {
		Start, Length int64
		Data          bool
	}
	out := disktest.Run(t, "qemu-img", "map", "--output=json", "--image-opts",
		"driver=nbd,server.type=unix,server.path="+socket+",x-dirty-bitmap=qemu:dirty-bitmap:"+name)
	if err := json.Unmarshal(out, &extents); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, e := range extents {
		n := len(list)
		switch {
		case e.Data:
		case n > 0 && list[n-1][0]+list[n-1][1] == e.Start:
			list[n-1][1] += e.Length
		default:
			list = append(list, span{e.Start, e.Length})
		}
	}
	return list
}

// TestBitmapsAgainstQEMU: bitmaps that QEMU kept while the image was written to,
// and what it says itself is in them.
func TestBitmapsAgainstQEMU(t *testing.T) {
	for name, v := range map[string]struct {
		options       string
		granularities []string
	}{
		"64k":         {"cluster_size=64k", []string{"64k", "512", "1M", "2G"}},
		"512":         {"cluster_size=512", []string{"512", "4k"}},
		"2M":          {"cluster_size=2M", []string{"512", "64k"}},
		"subclusters": {"extended_l2=on", []string{"4k"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			create(t, path, v.options, "40000000")
			rng := rand.New(rand.NewPCG(8, uint64(len(name))))
			for round, g := range v.granularities {
				disktest.Run(t, "qemu-img", "bitmap", "--add", "-g", g, path, "b"+g)
				var commands []string
				for range 10 {
					off := rng.Int64N(40_000_000)
					commands = append(commands, fmt.Sprintf("write -P %d %d %d", round+1, off, 1+rng.Int64N(min(40_000_000-off, 1<<rng.IntN(20)))))
				}
				qemuIO(t, path, commands...)
			}
			disktest.Run(t, "qemu-img", "bitmap", "--disable", path, "b"+v.granularities[0])
			qemuIO(t, path, "write -P 9 39999999 1")
			im := open(t, path, qcow2.Options{})
			checkBitmaps(t, im, path)
			for _, g := range v.granularities {
				got, err := collectDirty(im, "b"+g)
				if err != nil {
					t.Fatal(err)
				}
				if want := qemuDirty(t, path, "b"+g); !slices.Equal(got, want) || len(got) == 0 {
					t.Errorf("granularity %s\n got %v\nwant %v", g, got, want)
				}
			}
		})
	}
}

// TestBitmapWhileRecording: while QEMU writes, the bitmap on the disk is marked;
// killed, it stays so.
func TestBitmapWhileRecording(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	create(t, path, "cluster_size=64k", "4M")
	disktest.Run(t, "qemu-img", "bitmap", "--add", path, "b")
	cmd := exec.Command("qemu-io", "-f", "qcow2", path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "write -P 1 1M 64k")
	for seen := ""; !strings.Contains(seen, "wrote"); {
		buf := make([]byte, 256)
		n, err := out.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		seen += string(buf[:n])
	}
	cmd.Process.Kill()
	cmd.Wait()
	im := open(t, path, qcow2.Options{})
	checkBitmaps(t, im, path)
	_, err = collectDirty(im, "b")
	wantError(t, err, disk.ErrUnsupported)
	var e *disk.Error
	if asError(err, &e) && !strings.Contains(e.Hint, "read all of the disk") {
		t.Errorf("no way out in %v", err)
	}
}

// TestBitmapStopsAndNames: an error of yield ends the walk; names are looked up
// as bytes, and shown with care.
func TestBitmapStopsAndNames(t *testing.T) {
	s := newSmall(t, "zlib")
	im, err := qcow2.Open(bytes.NewReader(s.image), smallFile, qcow2.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	for want := range 3 {
		n := 0
		err := im.DirtyRanges("b", func(_, _ int64) error {
			if n++; n > want {
				return stop
			}
			return nil
		})
		if !errors.Is(err, stop) || n != want+1 {
			t.Errorf("%d calls, %v; want to stop at call %d", n, err, want+1)
		}
	}
	_, err = collectDirty(im, "none\x1b")
	wantError(t, err, disk.ErrNotExist)
	if strings.Contains(err.Error(), "\x1b") {
		t.Errorf("the error has the name as it is: %q", err)
	}
	snapshot, err := qcow2.Open(bytes.NewReader(s.image), smallFile, qcow2.Options{Snapshot: "s"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = collectDirty(snapshot, "b")
	wantError(t, err, disk.ErrUnsupported)
}
