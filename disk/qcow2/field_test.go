package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/qcow2"
)

// The tests of this file damage images that QEMU made, of the usual cluster size,
// where damage_test.go works on one made by hand.

// structures are the places of the structures of an image, by their pointers.
type structures struct {
	l1, l2, snapshots, snapshotL1 uint64
}

func parse(image []byte) structures {
	be := binary.BigEndian
	s := structures{l1: be.Uint64(image[40:]), snapshots: be.Uint64(image[64:])}
	s.l2 = be.Uint64(image[s.l1:]) &^ copied
	if s.snapshots != 0 {
		s.snapshotL1 = be.Uint64(image[s.snapshots:])
	}
	return s
}

// made returns an image of 1 MiB with data, zeros and holes in its first
// clusters, and a snapshot "s" of the same; and what it holds.
func made(t *testing.T, options string) (image, want []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	create(t, path, options, "1M")
	qemuIO(t, path, "write -P 1 0 70k", "write -P 2 200k 70k")
	disktest.Run(t, "qemu-img", "snapshot", "-c", "s", path)
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return image, content(t, path)
}

// TestEveryFieldOfQEMUs is TestEveryField for images of QEMU's.
func TestEveryFieldOfQEMUs(t *testing.T) {
	for _, options := range []string{"cluster_size=64k", "extended_l2=on", "compat=0.10"} {
		image, want := made(t, options)
		at := parse(image)
		list := [][2]int{
			{20, 4}, {24, 8}, {36, 4}, {40, 8}, {60, 4}, {64, 8}, {72, 8}, {96, 4}, {100, 4},
			{int(at.l1), 8}, {int(at.snapshotL1), 8},
			{int(at.snapshots), 8}, {int(at.snapshots) + 8, 4}, {int(at.snapshots) + 12, 2}, {int(at.snapshots) + 48, 8},
		}
		for i := range 10 { // five extended entries, or ten
			list = append(list, [2]int{int(at.l2) + 8*i, 8})
		}
		for _, f := range list {
			old := get(image[f[0]:], f[1])
			for _, v := range mutations(old, f[1])[:24] { // the extremes, and the low bits
				put(image[f[0]:], v, f[1])
				for _, snapshot := range []string{"", "s"} {
					checkAnyOutcome(t, fmt.Sprintf("%s, field at %#x set to %#x, snapshot %q", options, f[0], v, snapshot), image, snapshot)
				}
			}
			put(image[f[0]:], old, f[1])
		}
		for _, snapshot := range []string{"", "s"} { // all is as it was
			got, err := readAll(image, qcow2.Options{Snapshot: snapshot})
			checkOutcome(t, got, err, want, nil, "")
		}
	}
}

// TestEveryCutOfQEMUs cuts an image at every cluster, and in its middle. There is
// content that is right, or an error; only the last cluster may be cut unnoticed.
func TestEveryCutOfQEMUs(t *testing.T) {
	for _, options := range []string{"cluster_size=64k", "extended_l2=on", "cluster_size=4k"} {
		image, want := made(t, options)
		cluster := 1 << binary.BigEndian.Uint32(image[20:])
		for n := 0; n < len(image); n += cluster / 2 {
			got, err := readAll(image[:n], qcow2.Options{})
			if err != nil {
				wantOneOfOurs(t, err)
			}
			if differ(got, want[:len(got)]) > cluster {
				t.Errorf("%s cut to %d of %d: more than a cluster is wrong", options, n, len(image))
			}
			if err == nil && !bytes.Equal(got, want) && n%cluster == 0 {
				t.Errorf("%s cut to %d of %d, a whole cluster: wrong content, and no error", options, n, len(image))
			}
		}
	}
}

// differ counts the bytes that differ.
func differ(a, b []byte) int {
	n := 0
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// TestDamageIsLocal: one bad entry costs its cluster, and not what is around it.
func TestDamageIsLocal(t *testing.T) {
	image, want := made(t, "cluster_size=64k")
	at := parse(image)
	put(image[at.l2+8:], 1<<50, 8) // the second cluster
	im, err := qcow2.Open(bytes.NewReader(image), int64(len(image)), qcow2.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(want); off += 4096 {
		buf := make([]byte, 4096)
		n, err := im.ReadAt(buf, int64(off))
		if off>>16 == 1 {
			wantError(t, err, disk.ErrCorrupt)
			continue
		}
		if n != len(buf) || err != nil || !bytes.Equal(buf, want[off:off+4096]) {
			t.Fatalf("at %d: %d, %v", off, n, err)
		}
	}
	// A large read returns what is in front of it.
	if n, err := im.ReadAt(make([]byte, 1<<20), 0); n != 1<<16 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
	// Extents, too, come as far as the damage.
	var covered int64
	err = im.Extents(0, im.Size(), func(e disk.Extent) error { covered += e.Length; return nil })
	wantError(t, err, disk.ErrCorrupt)
	if covered > 1<<16 {
		t.Errorf("extents up to %d", covered)
	}
	var e *disk.Error
	if asError(err, &e) && (e.Offset != int64(at.l2)+8 || e.Structure != "L2 table") {
		t.Errorf("the error says %q at %#x", e.Structure, e.Offset)
	}
}

// TestInspectNeedsNoData: the header and the snapshot table are enough, even
// where everything else is gone.
func TestInspectNeedsNoData(t *testing.T) {
	s := newSmall(t, "zlib")
	s.put64(72, 1) // dirty
	clear(s.image[smallL1 : smallL2+smallCluster])
	info, list, err := qcow2.Inspect(bytes.NewReader(s.image), smallFile)
	if err != nil || !info.Dirty || info.Size != smallSize || info.Snapshots != 1 {
		t.Errorf("%+v, %v", info, err)
	}
	want := disk.Time{Sec: 1700000000, Nsec: 5}
	if len(list) != 1 || list[0].ID != "1" || list[0].Name != "s" || list[0].Size != smallSize || list[0].Time != want {
		t.Errorf("%+v", list)
	}
	s.put32(smallSnapshots+20, 1<<32-1)
	_, _, err = qcow2.Inspect(bytes.NewReader(s.image), smallFile)
	wantError(t, err, disk.ErrCorrupt)
	_, _, err = qcow2.Inspect(bytes.NewReader(nil), -1)
	wantError(t, err, disk.ErrCorrupt)
}
