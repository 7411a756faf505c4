package partition_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/partition"
)

var update = flag.Bool("update", false, "write the seeds in testdata/fuzz again")

const seedDir = "testdata/fuzz/FuzzRead"

// FuzzRead reads a table, with both sector sizes and with its checksums made
// right: there is an error of ours, or partitions that lie in the disk and do
// not overlap, and a second read agrees.
func FuzzRead(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, sector := range []int{512, 4096} {
			im := &image{sector: sector, b: bytes.Clone(b)}
			checkTable(t, im)
			if im.sectors() > 2 {
				im.seal(1)
				im.seal(im.sectors() - 1)
				checkTable(t, im)
			}
		}
	})
}

func checkTable(t *testing.T, im *image) {
	t.Helper()
	table, err := im.read()
	again, err2 := im.read()
	if !reflect.DeepEqual(table, again) || fmt.Sprint(err) != fmt.Sprint(err2) {
		t.Fatalf("two reads differ: %+v, %v; %+v, %v", table, err, again, err2)
	}
	if err != nil {
		var e *disk.Error
		if !errors.As(err, &e) || e.Structure == "" || !isDamage(err) {
			t.Fatalf("an error of another kind: %v", err)
		}
		return
	}
	for i, p := range table.Partitions {
		if p.Number < 1 || p.Offset < int64(im.sector) || p.Length <= 0 || p.Length > int64(len(im.b))-p.Offset {
			t.Fatalf("partition %+v of a disk of %d bytes", p, len(im.b))
		}
		for _, q := range table.Partitions[:i] {
			if q.Number == p.Number || !q.Extended() && !p.Extended() && p.Offset < q.Offset+q.Length && q.Offset < p.Offset+p.Length {
				t.Fatalf("partitions %+v and %+v", q, p)
			}
		}
	}
}

// seeds are small disks of each kind.
func seeds() map[string]*image {
	gpt := twoPartitions()
	backup := twoPartitions()
	backup.b[512+60] ^= 1
	large := newImage(4096, 8)
	large.gpt(gptEntry{3, 4, "four"})
	dos := newImage(512, 32)
	dos.record(0, [3]uint32{0x83, 1, 3}, [3]uint32{5, 4, 20})
	dos.record(4, [3]uint32{0x83, 1, 2}, [3]uint32{5, 5, 5})
	dos.record(9, [3]uint32{0x82, 1, 3})
	fat := newImage(512, 2)
	fat.record(0, [3]uint32{0x83, 1, 3})
	bootSector(fat)
	return map[string]*image{"gpt": gpt, "backup": backup, "large": large, "mbr": dos, "fat": fat}
}

// TestSeeds: every seed of the fuzz target is there, is loaded, and is what it
// is called.
func TestSeeds(t *testing.T) {
	if *update {
		for name, im := range seeds() {
			text := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", im.b)
			if err := os.WriteFile(filepath.Join(seedDir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, want := range map[string]struct {
		kind       partition.Kind
		partitions int
	}{
		"gpt": {partition.GPT, 2}, "backup": {partition.GPT, 2}, "large": {partition.GPT, 1},
		"mbr": {partition.MBR, 4}, "fat": {partition.None, 0},
	} {
		im := &image{sector: 512, b: loadSeed(t, filepath.Join(seedDir, name))}
		if name == "large" {
			im.sector = 4096
		}
		table, err := im.read()
		if err != nil || table.Kind != want.kind || len(table.Partitions) != want.partitions {
			t.Errorf("%s: %+v, %v", name, table, err)
		}
	}
}

func loadSeed(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	body, ok := strings.CutPrefix(string(text), "go test fuzz v1\n[]byte(")
	body, end := strings.CutSuffix(strings.TrimSpace(body), ")")
	b, err := strconv.Unquote(body)
	if !ok || !end || err != nil {
		t.Fatalf("%s is not a seed: %v", path, err)
	}
	return []byte(b)
}

// TestEveryByte turns every byte of the tables into 0, 1, its neighbours and the
// extremes: a table or an error, in little memory.
func TestEveryByte(t *testing.T) {
	for name, im := range seeds() {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		tries := uint64(0)
		for at := range min(len(im.b), im.sector+600) {
			old := im.b[at]
			for _, v := range []byte{0, 1, 0xff, 0xfe, old - 1, old + 1, old ^ 0x80} {
				im.b[at] = v
				tries++
				table, err := im.read()
				inHeader := at >= im.sector && at < im.sector+92
				if err == nil && table.Kind == partition.GPT && table.Damage == nil && inHeader && v != old && name != "backup" {
					t.Errorf("%s: byte %d is damaged, and nobody noticed", name, at)
				}
			}
			im.b[at] = old
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / tries; each > 1<<20 {
			t.Errorf("%s: %d bytes allocated for each", name, each)
		}
	}
}
