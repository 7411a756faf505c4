package partition_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/partition"
)

// TestRemarks damages the backup of a GPT that sgdisk wrote, and grows its disk:
// the table is as it was, we remark what sgdisk has as a problem, and nothing
// where it finds none.
func TestRemarks(t *testing.T) {
	const size = 64 << 20
	good := emptyDisk(t, size>>20)
	disktest.Run(t, "sgdisk", "-n", "1:2048:+8M", "-c", "1:first", "-n", "5:0:+8M", good)
	for name, v := range map[string]struct {
		change func(f *os.File) error
		want   []string
	}{
		"good": {func(*os.File) error { return nil }, nil},
		"no backup": {func(f *os.File) error { _, err := f.WriteAt(make([]byte, 512), size-512); return err },
			[]string{"no good backup GPT: gpt: header at offset 0x3fffe00: damaged: it does not start"}},
		"damaged header": {func(f *os.File) error { _, err := f.WriteAt([]byte{0xa5}, size-512+60); return err },
			[]string{"its checksum is"}},
		"damaged entries": {func(f *os.File) error { _, err := f.WriteAt([]byte{0xa5}, size-512-32*512+200); return err },
			[]string{"the checksum of the entries is"}},
		"grown": {func(f *os.File) error { return f.Truncate(size + 1<<20) },
			[]string{"has grown since it was partitioned: it ends with sector 133119, and the backup GPT is at sector 131071"}},
		"grown, no backup": {func(f *os.File) error {
			if _, err := f.WriteAt(make([]byte, 512), size-512); err != nil {
				return err
			}
			return f.Truncate(size + 1<<20)
		}, []string{"has grown", "no good backup GPT"}},
		"cut": {func(f *os.File) error { return f.Truncate(size - 512) },
			[]string{"no good backup GPT: gpt: header at offset 0x3fffe00: damaged: the disk of 131071 sectors has no room for it"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := disktest.CopyImage(t, good)
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := v.change(f); err != nil {
				t.Fatal(err)
			}
			table, err := partition.Read(openDisk(t, path), 0)
			if err != nil || table.Damage != nil || len(table.Partitions) != 2 {
				t.Fatalf("%+v, %v", table, err)
			}
			wantRemarks(t, table, v.want...)
			if name == "cut" {
				return // sgdisk gives up
			}
			verdict := string(disktest.Run(t, "sgdisk", "-v", path))
			if good := strings.Contains(verdict, "No problems found") && !strings.Contains(verdict, "corrupt"); good != (len(v.want) == 0) {
				t.Errorf("remarks %q; sgdisk says\n%s", table.Remarks, verdict)
			}
		})
	}
}

func wantRemarks(t *testing.T, table *partition.Table, want ...string) {
	t.Helper()
	if len(table.Remarks) != len(want) {
		t.Errorf("remarks %q, want %q", table.Remarks, want)
		return
	}
	for i, text := range want {
		if !strings.Contains(table.Remarks[i], text) {
			t.Errorf("remark %q, want one about %q", table.Remarks[i], text)
		}
	}
}

// TestRemarksOfHeaders are about what the two headers say of one another.
func TestRemarksOfHeaders(t *testing.T) {
	const other, entries = 32, 72
	for name, v := range map[string]struct {
		change func(im *image)
		want   string
	}{
		"backup among partitions": {func(im *image) { im.at(1)[other] = 40 }, "at sector 40, where partitions can be"},
		"backup is the primary":   {func(im *image) { im.at(1)[other] = 1 }, "at sector 1, where partitions can be"},
		"backup nowhere":          {func(im *image) { copy(im.at(1)[other:], "\xff\xff\xff\xff\xff\xff\xff\xff") }, "no good backup GPT"},
		"another disk":            {func(im *image) { im.at(63)[56] ^= 1 }, "another disk or other partitions"},
		"other partitions":        {func(im *image) { im.at(61)[40] ^= 1 }, "another disk or other partitions"},
		"entries of the primary":  {func(im *image) { im.at(63)[entries] = 2 }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			im := twoPartitions()
			v.change(im)
			im.seal(1)
			im.seal(63)
			table, err := im.read()
			if err != nil || table.Damage != nil || len(table.Partitions) != 2 {
				t.Fatalf("%+v, %v", table, err)
			}
			if v.want == "" {
				wantRemarks(t, table)
			} else {
				wantRemarks(t, table, v.want)
			}
		})
	}
	table, err := partition.Read(broken{twoPartitions().b, 63}, 512)
	if err != nil {
		t.Fatalf("a backup that cannot be read: %v", err)
	}
	wantRemarks(t, table, errDisk.Error())
}

// TestSectionLocate: the bytes of a section lie in the disk.
func TestSectionLocate(t *testing.T) {
	s, err := partition.Section(disktest.Mem(make([]byte, 8192)), 512, 4096)
	if err != nil {
		t.Fatal(err)
	}
	l := s.(disk.Locator)
	var got []disk.Location
	keep := func(at disk.Location) error { got = append(got, at); return nil }
	for _, r := range [][2]int64{{0, 4096}, {100, 10}, {4096, 0}} {
		if err := l.Locate(r[0], r[1], keep); err != nil {
			t.Fatal(err)
		}
	}
	if want := []disk.Location{{Length: 4096, At: 512}, {Offset: 100, Length: 10, At: 612}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, r := range [][2]int64{{-1, 1}, {0, 4097}, {1, 1<<63 - 1}} {
		if err := l.Locate(r[0], r[1], keep); err == nil {
			t.Errorf("%v lies somewhere", r)
		}
	}
}
