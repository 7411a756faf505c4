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

// TestRefcountWidths: reading does not depend on them.
func TestRefcountWidths(t *testing.T) {
	for _, width := range []int{1, 2, 4, 8, 16, 32, 64} {
		path := filepath.Join(t.TempDir(), "disk.qcow2")
		create(t, path, fmt.Sprintf("cluster_size=4k,refcount_bits=%d", width), "4M")
		qemuIO(t, path, "write -P 1 100k 300k", "write -z 1M 64k", "write -P 2 4190000 4304")
		im := open(t, path, qcow2.Options{})
		if im.Info().RefcountBits != width {
			t.Errorf("%d bits: Info says %d", width, im.Info().RefcountBits)
		}
		disktest.Check(t, im, content(t, path))
	}
}

// TestEncrypted: what QEMU encrypts is refused by the name of the method.
func TestEncrypted(t *testing.T) {
	for method, options := range map[string]string{
		"LUKS": "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10",
		"AES":  "encrypt.format=aes,encrypt.key-secret=k",
	} {
		path := filepath.Join(t.TempDir(), "disk.qcow2")
		var err error
		for range 20 { // QEMU measures how fast it derives keys, and gives up where that looks like no time
			if err = runQuietly("qemu-img", "create", "-q", "--object", "secret,id=k,data=x", "-f", "qcow2", "-o", options, path, "1M"); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		f, size := disktest.OpenFile(t, path)
		_, err = readFrom(f, size)
		wantError(t, err, disk.ErrUnsupported)
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(method)) {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// TestOtherWriters: what the format allows and QEMU does not write. QEMU reads it
// all the same.
func TestOtherWriters(t *testing.T) {
	stored := append([]byte{1, 0x00, 0x02, 0xff, 0xfd}, bytes.Repeat([]byte("drydock "), 64)...)
	for name, change := range map[string]func(*small){
		"a short header": func(s *small) {
			s.put32(100, 104)
			clear(s.image[104:smallCluster])
			s.put64(88, 0)
		},
		"no copied bits": func(s *small) {
			for _, at := range []int{smallL1, smallL2, smallSnapshotL1, smallSnapshotL2} {
				s.image[at] &= 0x7f
			}
		},
		"an uncompressed block over two clusters": func(s *small) {
			s.put64(smallL2+24, smallFile|1<<61|1<<62)
			s.image = append(s.image, stored...)
		},
		"a compressed cluster at an odd place, in a cut sector": func(s *small) {
			at := len(s.image) + 13
			s.put64(smallL2+24, uint64(at)|1<<61|1<<62)
			s.image = append(append(s.image, make([]byte, 13)...), stored...)
		},
		"the active tables at the end": func(s *small) {
			s.put64(40, smallFile)
			s.image = append(s.image, s.image[smallL1:smallL1+smallCluster]...)
			s.put64(smallFile, smallFile+smallCluster|copied)
			s.image = append(s.image, s.image[smallL2:smallL2+smallCluster]...)
		},
		"a long L1 table": func(s *small) { s.put32(36, 64) },
		"rubbish behind the end": func(s *small) {
			s.image = append(s.image, bytes.Repeat([]byte{0xa5}, 12345)...)
		},
		"the snapshot's cluster is the active one": func(s *small) {
			s.put64(smallSnapshotL2, smallData)
			s.image[smallL2] &= 0x7f
			copy(s.frozen, s.active[:smallCluster])
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSmall(t, "zlib")
			change(s)
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			if err := os.WriteFile(path, s.image, 0o600); err != nil {
				t.Fatal(err)
			}
			for snapshot, want := range map[string][]byte{"": s.active, "s": s.frozen} {
				im, err := qcow2.Open(bytes.NewReader(s.image), int64(len(s.image)), qcow2.Options{Snapshot: snapshot})
				if err != nil {
					t.Fatal(err)
				}
				disktest.Check(t, im, want)
			}
			if !bytes.Equal(content(t, path), s.active) || !bytes.Equal(content(t, path, "-l", "snapshot.name=s"), s.frozen) {
				t.Error("QEMU reads something else")
			}
		})
	}
}

// TestEveryExtendedField sets every number that an extended L2 entry and the ways
// to it are made of to everything in mutations.
func TestEveryExtendedField(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	create(t, path, "extended_l2=on,cluster_size=16k", "1M")
	qemuIO(t, path, "write -P 1 1k 3k", "write -z 5k 1k", "write -P 2 16k 16k", "write -z 32k 16k", "write -c -P 3 48k 16k")
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l1 := int(binary.BigEndian.Uint64(image[40:]))
	l2 := int(binary.BigEndian.Uint64(image[l1:]) &^ copied)
	places := [][2]int{{20, 4}, {24, 8}, {72, 8}, {l1, 8}}
	for i := range 10 {
		places = append(places, [2]int{l2 + 8*i, 8})
	}
	for _, p := range places {
		old := get(image[p[0]:], p[1])
		for _, v := range mutations(old, p[1]) {
			put(image[p[0]:], v, p[1])
			checkAnyOutcome(t, fmt.Sprintf("field at %#x set to %#x", p[0], v), image, "")
		}
		put(image[p[0]:], old, p[1])
	}
}

// TestEveryExternalField does the same to an image with an external data file:
// what is read in spite of the damage is the data file's, or zeros.
func TestEveryExternalField(t *testing.T) {
	s, data := external(t)
	whole := bytes.Clone(s.image)
	for _, p := range [][2]int{{72, 8}, {88, 8}, {smallL1, 8}, {smallL2, 8}, {smallL2 + 8, 8}, {smallL2 + 16, 8}, {smallL2 + 24, 8}} {
		for _, v := range mutations(get(whole[p[0]:], p[1]), p[1]) {
			image := bytes.Clone(whole)
			put(image[p[0]:], v, p[1])
			got, err := readAll(image, qcow2.Options{DataFile: data})
			var e *disk.Error
			if err != nil && !asError(err, &e) {
				t.Errorf("field at %#x set to %#x: %v", p[0], v, err)
			}
			for i := 0; err == nil && i < len(got); i += smallCluster {
				cluster := got[i : i+smallCluster]
				if !bytes.Equal(cluster, data[i:i+smallCluster]) && len(bytes.Trim(cluster, "\x00")) > 0 {
					t.Errorf("field at %#x set to %#x: cluster %d is neither zeros nor in its place", p[0], v, i/smallCluster)
				}
			}
		}
	}
}
