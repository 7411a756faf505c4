package lvm_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/lvm"
)

// readAll reads all volumes of a group, and returns the first error.
func readAll(pvs []disk.Sparse) error {
	for _, d := range pvs {
		if _, err := lvm.Identify(d); err != nil {
			return err
		}
	}
	g, err := lvm.OpenGroup(pvs)
	if err != nil {
		return err
	}
	var first error
	for _, v := range g.Volumes {
		if err := readVolume(g, v); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func readVolume(g *lvm.Group, v lvm.Volume) error {
	d, err := g.Volume(v.Name)
	if err != nil {
		return err
	}
	if d.Size() != v.Size || v.Size <= 0 {
		return fmt.Errorf("volume %s has %d bytes, and %d", v.Name, d.Size(), v.Size)
	}
	buf := make([]byte, 8192)
	for _, off := range []int64{0, v.Size / 2, max(0, v.Size-8192)} {
		if n, err := d.ReadAt(buf, off); n < int(min(v.Size-off, 8192)) {
			return err
		}
	}
	next := int64(0)
	err = d.Extents(0, min(v.Size, 1<<20), func(e disk.Extent) error {
		if e.Offset != next || e.Length <= 0 {
			return fmt.Errorf("extent %+v where %d is due", e, next)
		}
		next += e.Length
		return nil
	})
	if err == nil && next != min(v.Size, 1<<20) {
		return errors.New("extents do not cover the volume")
	}
	return err
}

// check fails a test where an error is not what package disk promises.
func check(t testing.TB, what string, err error) {
	t.Helper()
	var detail *disk.Error
	if err != nil && (!errors.As(err, &detail) || detail.Layer != "lvm" || detail.Structure == "") {
		t.Errorf("%s: not a disk.Error of lvm: %v", what, err)
	}
}

// TestText checks what is refused of a text whose checksum is right.
func TestText(t *testing.T) {
	if err := openText(goodText); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		from, to string
		want     error
	}{
		"not a group":            {"Text Format", "Text format", disk.ErrCorrupt},
		"version":                {"version = 1", "version = 2", disk.ErrUnsupported},
		"format":                 {`"lvm2"`, `"lvm1"`, disk.ErrUnsupported},
		"format as a number":     {`"lvm2"`, `2`, disk.ErrCorrupt},
		"no version":             {"version = 1", "", disk.ErrCorrupt},
		"two groups":             {"contents", "other {\n}\ncontents", disk.ErrCorrupt},
		"name of the group":      {"vg {", "-vg {", disk.ErrCorrupt},
		"long name":              {"vg {", strings.Repeat("v", 129) + " {", disk.ErrCorrupt},
		"group status":           {`["RESIZEABLE"`, `["SOMETHING"`, disk.ErrUnsupported},
		"volume status":          {visible, visible + `, "NEW"`, disk.ErrUnsupported},
		"extent size 0":          {"extent_size = 8", "extent_size = 0", disk.ErrCorrupt},
		"huge extents":           {"extent_size = 8", "extent_size = 4294967295", disk.ErrCorrupt},
		"number as a string":     {"extent_size = 8", `extent_size = "8"`, disk.ErrCorrupt},
		"number as a list":       {"extent_size = 8", `extent_size = [8]`, disk.ErrCorrupt},
		"huge number":            {"seqno = 7", "seqno = 9223372036854775808", disk.ErrCorrupt},
		"octal number":           {"seqno = 7", "seqno = 0x7", disk.ErrCorrupt},
		"set twice":              {"seqno = 7", "seqno = 7 seqno = 7", disk.ErrCorrupt},
		"there twice":            {"pv1 {", "pv0 {", disk.ErrCorrupt},
		"UUID twice":             {uuid("q"), uuid("p"), disk.ErrCorrupt},
		"UUID":                   {uuid("v"), "v" + uuid("v"), disk.ErrCorrupt},
		"letter of a UUID":       {uuid("v"), uuid("{"), disk.ErrCorrupt},
		"dashes of a UUID":       {uuid("v"), "v-" + uuid("v")[2:], disk.ErrCorrupt},
		"old letters of a UUID":  {uuid("v"), uuid("#"), nil},
		"no end of string":       {`"Text Format Volume Group"`, `"Text`, disk.ErrCorrupt},
		"no end of list":         {"flags = []", "flags = [", disk.ErrCorrupt},
		"no commas":              {`"READ", "WRITE"`, `"READ" "WRITE"`, disk.ErrCorrupt},
		"no value":               {"max_lv = 0", "max_lv =", disk.ErrCorrupt},
		"no equals":              {"max_lv = 0", "max_lv 0", disk.ErrCorrupt},
		"behind the end":         {"\x00", "\x00 x", disk.ErrCorrupt},
		"brace too many":         {"contents", "}\ncontents", disk.ErrCorrupt},
		"brace at the end":       {"\x00", "}\x00", disk.ErrCorrupt},
		"brace missing":          {"contents", "x {\ncontents", disk.ErrCorrupt},
		"depth":                  {"max_lv = 0", strings.Repeat("a {", 20) + strings.Repeat("}", 20), disk.ErrLimit},
		"items":                  {"max_lv = 0", "max_lv = [" + strings.Repeat("0,", 6000) + "0]", nil},
		"start beyond the disk":  {"pe_start = 64", "pe_start = 640", disk.ErrCorrupt},
		"start overflows":        {"pe_start = 64", "pe_start = 9007199254740992", disk.ErrCorrupt},
		"negative start":         {"pe_start = 64", "pe_start = -64", disk.ErrCorrupt},
		"more extents than disk": {"pe_count = 8", "pe_count = 4294967295", nil}, // as long as none is used
		"extent beyond the last": {"pe_count = 8", "pe_count = 4", disk.ErrCorrupt},
		"extent beyond":          {`["pv0", 1]`, `["pv0", 5]`, disk.ErrCorrupt},
		"extent negative":        {`["pv0", 1]`, `["pv0", -1]`, disk.ErrCorrupt},
		"extent is a word":       {`["pv0", 1]`, `["pv0", "1"]`, disk.ErrCorrupt},
		"overlap":                {`["pv0", 1]`, `["pv0", 3]`, disk.ErrCorrupt},
		"unknown volume":         {`["pv0", 1]`, `["pv9", 1]`, disk.ErrUnsupported},
		"too few stripes":        {`["pv0", 1]`, `["pv0"]`, disk.ErrCorrupt},
		"no stripes":             {`stripe_count = 1`, `stripe_count = 0`, disk.ErrCorrupt},
		"many stripes":           {`stripe_count = 1`, `stripe_count = 4294967295`, disk.ErrCorrupt},
		"odd stripes":            {`stripe_count = 2 stripe_size = 4 stripes = ["pv0", 6, "pv1", 3]`, `stripe_count = 3 stripe_size = 4 stripes = ["pv0", 6, "pv1", 3, "pv1", 5]`, disk.ErrCorrupt},
		"chunk 0":                {"stripe_size = 4", "stripe_size = 0", disk.ErrCorrupt},
		"odd chunk":              {"stripe_size = 4", "stripe_size = 5", disk.ErrCorrupt},
		"segment count":          {"segment_count = 1", "segment_count = 2", disk.ErrCorrupt},
		"gap":                    {"start_extent = 0", "start_extent = 1", disk.ErrCorrupt},
		"no extents":             {"extent_count = 4", "extent_count = 0", disk.ErrCorrupt},
		"many extents":           {"extent_count = 4", "extent_count = 4294967295", disk.ErrCorrupt},
		"no volumes":             {"logical_volumes", "other", nil},
		"no physical volumes":    {"physical_volumes", "other", disk.ErrCorrupt},
		"missing in the guest":   {"flags = []\npe_start", "flags = [\"MISSING\"]\npe_start", disk.ErrUnsupported},
		"empty type":             {`"striped" stripe_count = 1`, `"" stripe_count = 1`, disk.ErrUnsupported},
		"snapshot of nothing":    {`type = "striped" stripe_count = 1`, `cow_store = [] type = "snapshot"`, disk.ErrUnsupported},
		"status is a number":     {`status = ["RESIZEABLE", "READ", "WRITE"]`, "status = [1]", disk.ErrCorrupt},
		"no status":              {`status = ["RESIZEABLE", "READ", "WRITE"]`, "", disk.ErrCorrupt},
		"one status, no list":    {`status = ["RESIZEABLE", "READ", "WRITE"]`, `status = "READ"`, nil},
		"name of a volume":       {"v {\n\t\tid", "-v {\n\t\tid", disk.ErrCorrupt},
		"no segments":            {"segment_count = 1\n\t\tsegment1 {", "segment_count = 0 }\n\t\tw { id = \"" + uuid("w") + "\" status = [] segment_count = 1 segment1 {", disk.ErrUnsupported},
		"hostile type":           {`"striped" stripe_count = 1`, "\"\x1b[2J\" stripe_count = 1", disk.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(goodText, c.from) {
				t.Fatalf("%q is not in the text", c.from)
			}
			text := strings.Replace(goodText, c.from, c.to, 1)
			err := openText(text)
			check(t, name, err)
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			// What Identify refuses is no group either.
			p, q := physicalVolume("p", text), physicalVolume("q", text)
			if _, err := lvm.Identify(p); err != nil {
				_, group := lvm.OpenGroup([]disk.Sparse{p, q})
				check(t, name, group)
				if !errors.Is(group, c.want) {
					t.Errorf("the group: %v, want %v", group, c.want)
				}
			}
			if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
				t.Errorf("hostile bytes in %q", err)
			}
		})
	}
}

// TestRefusedTypes names the type of a volume that is not read, whatever else its
// segment says, and reads the one beside it.
func TestRefusedTypes(t *testing.T) {
	for kind, want := range map[string]string{
		"snapshot": "it is a snapshot", "mirror": "it is a mirror", "raid0": "a RAID of type raid0", "raid6_ra_6": "a RAID of type raid6_ra_6",
		"thin": "it is a thin volume", "thin-pool": "it is a pool of thin volumes", "cache": "it is cached", "cache-pool": "it is a pool of cache",
		"writecache": "its writes are cached", "vdo": "it is a VDO volume", "vdo-pool": "it is a VDO volume", "integrity": "integrity checks",
		"zero": `its type is "zero"`, "raid7": `its type is "raid7"`,
	} {
		text := strings.Replace(goodText, `type = "striped"`, `type = "`+kind+`"`, 1)
		g, err := lvm.OpenGroup([]disk.Sparse{physicalVolume("p", text), physicalVolume("q", text)})
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		v := g.Volumes[0]
		if v.Type != kind || !errors.Is(v.Err, disk.ErrUnsupported) || !strings.Contains(v.Err.Error(), want) || v.Size != 4*4096 {
			t.Errorf("%s: %+v, want an error that says %q", kind, v, want)
		}
		if _, err := g.Volume("v"); err != v.Err {
			t.Errorf("%s opens: %v", kind, err)
		}
		if err := readVolume(g, g.Volumes[1]); err != nil || g.Volumes[1].Name != "s" {
			t.Errorf("%s: the other volume: %v", kind, err)
		}
	}
}

// TestLargestVolume has volumes as large as numbers of bytes and of extents can say, and
// one extent larger.
func TestLargestVolume(t *testing.T) {
	const sectors = 1<<32 - 1 // of the largest extent, of which 2^22 are possible
	for _, c := range []struct {
		size          int64 // sectors of an extent
		first, second int64 // extents of two segments
		want          error
		text          string
	}{
		{sectors, 1<<22 - 1, 1, disk.ErrUnsupported, "its type is"},
		{sectors, 1 << 22, 1, disk.ErrLimit, "4194305 extents of 2199023255040 bytes"},
		{sectors, 1<<22 + 1, 1, disk.ErrLimit, "4194305 extents of 2199023255040 bytes"},
		{1, 1<<32 - 2, 1, disk.ErrUnsupported, "its type is"},
		{1, 1<<32 - 1, 1, disk.ErrCorrupt, "more than 4294967295 extents"},
		{1, 1 << 32, 1, disk.ErrCorrupt, `"extent_count" is 4294967296, possible are 1 to 4294967295`},
	} {
		text, rest, _ := strings.Cut(goodText, "logical_volumes {")
		_, rest, _ = strings.Cut(rest, "}\n}\ncontents")
		text = strings.Replace(text, "extent_size = 8", fmt.Sprint("extent_size = ", c.size), 1)
		text += fmt.Sprintf(`logical_volumes { v { id = "%s" status = ["VISIBLE"] segment_count = 2
			segment1 { start_extent = 0 extent_count = %d type = "zero" }
			segment2 { start_extent = %d extent_count = %d type = "zero" } } } }
			contents%s`, uuid("v"), c.first, c.first, c.second, rest)
		if err := openText(text); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%d and %d extents of %d sectors: %v, want %v that says %q", c.first, c.second, c.size, err, c.want, c.text)
		}
	}
}

// TestDamage changes each byte of the label, of the header of the area and of
// the text. Without new checksums that must be an error.
func TestDamage(t *testing.T) {
	good := physicalVolume("p", goodText)
	other := physicalVolume("q", goodText)
	for _, r := range [][2]int{{512, 1024}, {areaAt, areaAt + 512}, {areaAt + 512, areaAt + 600}, {areaAt + areaSize - 100, areaAt + areaSize}} {
		for at := r[0]; at < r[1]; at++ {
			for _, bit := range []byte{1, 0x80} {
				good[at] ^= bit
				what := fmt.Sprintf("byte %#x", at)
				err := readAll([]disk.Sparse{good, other})
				check(t, what, err)
				if err == nil {
					t.Errorf("%s: no error", what)
				}
				seal(good)
				check(t, what+", sealed", readAll([]disk.Sparse{good, other}))
				good[at] ^= bit
				seal(good)
			}
		}
	}
	if err := readAll([]disk.Sparse{good, other}); err != nil {
		t.Errorf("the test does not undo what it does: %v", err)
	}
}

// TestDamagedArea: where one of two areas is damaged, the other one is used.
func TestDamagedArea(t *testing.T) {
	r := newRig(t, 8<<20)
	r.Run("pvcreate", "--pvmetadatacopies", "2", r.devices[0])
	r.Run("vgcreate", "vg", r.devices[0])
	r.Create("-n", "v", "-l", "1", "vg")
	d := r.disks()[0].(disktest.Mem)
	d[4096] ^= 1
	g, err := lvm.OpenGroup([]disk.Sparse{d})
	if err != nil || len(g.Volumes) != 1 || len(g.Remarks) != 1 {
		t.Errorf("%+v, %v", g, err)
	}
	d[d.Size()-1<<20] ^= 1
	if _, err := lvm.OpenGroup([]disk.Sparse{d}); !errors.Is(err, disk.ErrCorrupt) {
		t.Errorf("both damaged: %v", err)
	}
}

// TestDisagreement: two copies that claim to be equally new must be the same.
func TestDisagreement(t *testing.T) {
	changed := strings.Replace(goodText, `["pv0", 1]`, `["pv0", 0]`, 1)
	_, err := lvm.OpenGroup([]disk.Sparse{physicalVolume("p", goodText), physicalVolume("q", changed)})
	if !errors.Is(err, disk.ErrCorrupt) {
		t.Error(err)
	}
	g, err := lvm.OpenGroup([]disk.Sparse{physicalVolume("p", goodText), physicalVolume("q", strings.Replace(changed, "seqno = 7", "seqno = 8", 1))})
	if err != nil || len(g.Remarks) != 1 {
		t.Errorf("%+v, %v", g, err)
	}
}

// TestLabel checks what is a label, what is a damaged one and what is none.
func TestLabel(t *testing.T) {
	le := binary.LittleEndian
	areas := func(d disktest.Mem, n int) { // of metadata
		for i := range n {
			le.PutUint64(d[512+64+8*5+16*i:], areaAt)
			le.PutUint64(d[512+64+8*5+16*i+8:], areaSize)
		}
	}
	for name, c := range map[string]struct {
		change func(d disktest.Mem)
		want   error
	}{
		"good":            {func(disktest.Mem) {}, nil},
		"last sector":     {func(d disktest.Mem) { copy(d[3*512:], d[512:1024]); clear(d[512:1024]); d[3*512+8] = 3 }, nil},
		"none":            {func(d disktest.Mem) { clear(d[512:1024]) }, disk.ErrNotExist},
		"fifth sector":    {func(d disktest.Mem) { copy(d[4*512:], d[512:1024]); clear(d[512:1024]); d[4*512+8] = 4 }, disk.ErrNotExist},
		"magic":           {func(d disktest.Mem) { copy(d[512:], "LABELTWO") }, disk.ErrNotExist},
		"LVM1":            {func(d disktest.Mem) { copy(d[512+24:], "LVM1 001") }, disk.ErrNotExist},
		"checksum":        {func(d disktest.Mem) { d[600] ^= 1 }, disk.ErrCorrupt},
		"sector":          {func(d disktest.Mem) { d[512+8] = 2 }, disk.ErrCorrupt},
		"header":          {func(d disktest.Mem) { le.PutUint32(d[512+20:], 513) }, disk.ErrCorrupt},
		"header at end":   {func(d disktest.Mem) { le.PutUint32(d[512+20:], 512) }, disk.ErrCorrupt},
		"UUID":            {func(d disktest.Mem) { d[512+32+5] = '{' }, disk.ErrCorrupt},
		"two areas":       {func(d disktest.Mem) { areas(d, 2) }, nil},
		"three areas":     {func(d disktest.Mem) { areas(d, 3) }, disk.ErrLimit},
		"endless areas":   {func(d disktest.Mem) { areas(d, 25) }, disk.ErrCorrupt},
		"second is good":  {func(d disktest.Mem) { copy(d[1024:], d[512:1024]); d[1024+8] = 2; d[512+8] = 9 }, nil},
		"second is worse": {func(d disktest.Mem) { copy(d[1024:], d[512:1024]); d[512+8] = 9 }, disk.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			d := physicalVolume("p", goodText)
			c.change(d)
			for sector := range 5 {
				if l := d[sector*512:][:512]; name != "checksum" && string(l[:8]) == "LABELONE" {
					le.PutUint32(l[16:], checksum(l[20:]))
				}
			}
			_, err := lvm.Identify(d)
			check(t, name, err)
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if known, err := lvm.Recognise(d); known != (c.want == nil) || err != nil {
				t.Errorf("recognised: %v, %v", known, err)
			}
			if _, err := lvm.OpenGroup([]disk.Sparse{d}); !errors.Is(err, c.want) {
				t.Errorf("the group: %v, want %v", err, c.want)
			}
		})
	}
}

// broken is a disk that cannot be read from some byte on.
type broken struct {
	disktest.Mem
	from int64
}

var errDisk = errors.New("the disk is broken")

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.from {
		return 0, errDisk
	}
	return b.Mem.ReadAt(p, off)
}

// TestUnreadable: what cannot be read is neither damage nor absent.
func TestUnreadable(t *testing.T) {
	d := physicalVolume("p", goodText)
	if known, err := lvm.Recognise(broken{d, 0}); known || !errors.Is(err, errDisk) {
		t.Errorf("recognised: %v, %v", known, err)
	}
	for _, from := range []int64{0, areaAt, areaAt + 512} { // label, header of the area, text
		_, err := lvm.OpenGroup([]disk.Sparse{broken{d, from}})
		check(t, "group", err)
		if !errors.Is(err, errDisk) {
			t.Errorf("from byte %#x: %v", from, err)
		}
	}
	const extent = 4096
	g, err := lvm.OpenGroup([]disk.Sparse{broken{d, extentsAt + 2*extent}, physicalVolume("q", goodText)})
	if err != nil {
		t.Fatal(err)
	}
	v, err := g.Volume("v") // extents 1 to 4
	if err != nil {
		t.Fatal(err)
	}
	if n, err := v.ReadAt(make([]byte, extent), 0); n != extent || err != nil {
		t.Errorf("%d bytes: %v", n, err)
	}
	n, err := v.ReadAt(make([]byte, 2*extent), 0)
	check(t, "content", err)
	if n == 2*extent || !errors.Is(err, errDisk) {
		t.Errorf("%d bytes: %v", n, err)
	}
}

// TestDamagedMember: where one member's metadata is damaged, that of another one is
// used, and it is a remark.
func TestDamagedMember(t *testing.T) {
	p, q := physicalVolume("p", goodText), physicalVolume("q", goodText)
	p[areaAt+areaSize-1] ^= 1 // of the text
	for _, pvs := range [][]disk.Sparse{{p, q}, {q, p}} {
		g, err := lvm.OpenGroup(pvs)
		if err != nil || len(g.Volumes) != 2 || len(g.Remarks) != 1 || g.Volumes[0].Err != nil || g.Volumes[1].Err != nil {
			t.Errorf("%+v, %v", g, err)
		}
	}
	q[areaAt] ^= 1
	if _, err := lvm.OpenGroup([]disk.Sparse{p, q}); !errors.Is(err, disk.ErrCorrupt) {
		t.Errorf("both damaged: %v", err)
	}
}

// TestMissingMember: a volume says on which of the disks it lies that are there.
func TestMissingMember(t *testing.T) {
	g, err := lvm.OpenGroup([]disk.Sparse{physicalVolume("p", goodText)})
	if err != nil || len(g.Remarks) != 1 {
		t.Fatalf("%+v, %v", g, err)
	}
	for _, v := range g.Volumes {
		if v.Name == "v" != (v.Err == nil) || v.Err != nil && !errors.Is(v.Err, disk.ErrNotExist) || !slices.Equal(v.Devices, []int{0}) {
			t.Errorf("%+v", v)
		}
	}
}

// TestFarExtent: an extent whose place has more than 64 bits does not come round to
// the start of the disk.
func TestFarExtent(t *testing.T) {
	text := strings.Replace(goodText, "extent_size = 8", "extent_size = 2147483648", 1) // 2^40 bytes
	text = strings.Replace(text, "pe_count = 8", "pe_count = 4294967295", 1)
	text = strings.Replace(text, `["pv0", 1]`, `["pv0", 16777216]`, 1) // times 2^40 bytes
	g, err := lvm.OpenGroup([]disk.Sparse{huge{physicalVolume("p", text)}, huge{physicalVolume("q", text)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Volume("v"); !errors.Is(err, disk.ErrCorrupt) {
		t.Error(err)
	}
}

// TestAreaHeader checks what an area of metadata says of itself.
func TestAreaHeader(t *testing.T) {
	le := binary.LittleEndian
	for name, c := range map[string]struct {
		change func(d disktest.Mem)
		want   error
		text   string
	}{
		"magic number":   {func(d disktest.Mem) { d[areaAt+4] ^= 1 }, disk.ErrCorrupt, "magic number"},
		"version":        {func(d disktest.Mem) { d[areaAt+20] = 2 }, disk.ErrUnsupported, "version 2"},
		"another place":  {func(d disktest.Mem) { le.PutUint64(d[areaAt+24:], areaAt+512) }, disk.ErrCorrupt, "it says that it has"},
		"larger":         {func(d disktest.Mem) { le.PutUint64(d[areaAt+32:], areaSize+1) }, disk.ErrCorrupt, "it says that it has"},
		"too small":      {func(d disktest.Mem) { le.PutUint64(d[areaAt+32:], 511) }, disk.ErrCorrupt, "it says that it has 511 bytes"},
		"ignored":        {func(d disktest.Mem) { d[areaAt+60] = 1 }, disk.ErrNotExist, "keeps metadata"},
		"no text":        {func(d disktest.Mem) { le.PutUint64(d[areaAt+40:], 0) }, disk.ErrNotExist, "keeps metadata"},
		"an empty text":  {func(d disktest.Mem) { le.PutUint64(d[areaAt+48:], 0) }, disk.ErrNotExist, "keeps metadata"},
		"behind the end": {func(d disktest.Mem) { le.PutUint64(d[512+64+8*5:], 64<<10) }, disk.ErrCorrupt, "not within the device"},
		"over the end":   {func(d disktest.Mem) { le.PutUint64(d[512+64+8*6:], 60<<10+1) }, disk.ErrCorrupt, "not within the device"},
		"no header":      {func(d disktest.Mem) { le.PutUint64(d[512+64+8*6:], 511) }, disk.ErrCorrupt, "not within the device"},
	} {
		d := physicalVolume("p", goodText)
		c.change(d)
		seal(d)
		_, err := lvm.OpenGroup([]disk.Sparse{d})
		check(t, name, err)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v with %q", name, err, c.want, c.text)
		}
	}
}

// TestTwoGroups: physical volumes of two groups are none, whichever is newer.
func TestTwoGroups(t *testing.T) {
	for _, seqno := range []string{"6", "7", "8"} {
		other := strings.Replace(strings.Replace(goodText, uuid("g"), uuid("h"), 1), "seqno = 7", "seqno = "+seqno, 1)
		_, err := lvm.OpenGroup([]disk.Sparse{physicalVolume("p", goodText), physicalVolume("q", other)})
		check(t, seqno, err)
		if !errors.Is(err, disk.ErrCorrupt) {
			t.Errorf("number %s: %v", seqno, err)
		}
	}
}

// TestRing checks places of the text that are not in the ring.
func TestRing(t *testing.T) {
	for name, c := range map[string]struct {
		off, size uint64
		want      error
	}{
		"in the header": {100, 100, disk.ErrCorrupt},
		"behind":        {areaSize, 100, disk.ErrCorrupt},
		"far behind":    {1 << 63, 100, disk.ErrCorrupt},
		"over itself":   {600, areaSize - 511, disk.ErrCorrupt},
		"huge":          {600, 1<<64 - 1, disk.ErrLimit},
		"none":          {0, 0, disk.ErrNotExist},
	} {
		d := physicalVolume("p", goodText)
		binary.LittleEndian.PutUint64(d[areaAt+40:], c.off)
		binary.LittleEndian.PutUint64(d[areaAt+48:], c.size)
		seal(d)
		if _, err := lvm.OpenGroup([]disk.Sparse{d}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestPrecommitted: a text that was about to be committed when the guest died does
// not count.
func TestPrecommitted(t *testing.T) {
	d := physicalVolume("p", goodText)
	for i, v := range []uint64{600, 100, 1 << 32} {
		binary.LittleEndian.PutUint64(d[areaAt+64+8*i:], v)
	}
	seal(d)
	if err := readAll([]disk.Sparse{d, physicalVolume("q", goodText)}); err != nil {
		t.Error(err)
	}
}

// TestCut cuts a disk everywhere.
func TestCut(t *testing.T) {
	d := physicalVolume("p", goodText)
	for end := 0; end < len(d); end += 97 {
		err := readAll([]disk.Sparse{d[:end], physicalVolume("q", goodText)})
		check(t, fmt.Sprint(end), err)
		if err == nil {
			t.Errorf("cut at %d: no error", end)
		}
	}
}

// TestLargeText reads the largest text that fits the limits in bounded time.
func TestLargeText(t *testing.T) {
	const size = 8 << 20
	text := strings.Replace(goodText, "max_lv = 0", "max_lv = [0"+strings.Repeat(",0", lvm.MaxText/2-4000)+"]", 1)
	d := make(disktest.Mem, size+64<<10)
	copy(d, physicalVolume("p", goodText))
	area := d[areaAt:]
	copy(area[512:], text)
	for i, v := range []uint64{areaAt, size, 512, uint64(len(text))} {
		binary.LittleEndian.PutUint64(area[24+8*i:], v)
	}
	binary.LittleEndian.PutUint64(d[512+64+8*6:], size)
	binary.LittleEndian.PutUint32(area[56:], checksum([]byte(text)))
	seal(d)
	start := time.Now()
	if _, err := lvm.Identify(d); !errors.Is(err, disk.ErrLimit) {
		t.Errorf("%d bytes of text: %v", len(text), err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// FuzzText opens groups whose text is the input.
func FuzzText(f *testing.F) {
	f.Add(goodText)
	f.Add("")
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) < 3 {
		f.Fatalf("%d seeds: %v", len(paths), err)
	}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(raw))
	}
	f.Fuzz(func(t *testing.T, text string) {
		first, second := openText(text), openText(text)
		check(t, "fuzzed", first)
		if (first == nil) != (second == nil) {
			t.Errorf("two reads differ: %v, %v", first, second)
		}
	})
}

// FuzzDevice changes a disk as [disktest.Mutate] does.
func FuzzDevice(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add([]byte{0, 2, 20, 0, 0, 0, 1, 0, 16, 40, 0, 0, 0, 1}, true)
	f.Fuzz(func(t *testing.T, input []byte, sealed bool) {
		good := physicalVolume("p", goodText)
		if _, err := lvm.OpenGroup([]disk.Sparse{good}); err != nil {
			t.Fatal(err)
		}
		changed := disktest.Mutate(disktest.Image{ReaderAt: good, Length: good.Size()}, input)
		d := make(disktest.Mem, good.Size())
		if _, err := changed.ReadAt(d, 0); err != nil {
			t.Fatal(err)
		}
		if sealed {
			seal(d)
		}
		check(t, "fuzzed", readAll([]disk.Sparse{d, physicalVolume("q", goodText)}))
	})
}
