package lvm_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/lvm"
)

var update = flag.Bool("update", false, "write the texts in testdata anew")

// restore replaces the volumes of a group by those of a text, as LVM's own
// vgcfgrestore does after it has checked them.
func (r *rig) restore(group, volumes string) {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), "backup")
	r.Run("vgcfgbackup", "-f", path, group)
	raw, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(raw), "logical_volumes {")
	text = strings.TrimSpace(text)
	if !strings.Contains(string(raw), "logical_volumes {") {
		text = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(string(raw)), "}"))
	}
	if err := os.WriteFile(path, []byte(text+"\nlogical_volumes {\n"+volumes+"\n}\n}\n"), 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.Run("vgcfgrestore", "--force", "-f", path, group)
}

// uuid makes a different UUID of each letter.
func uuid(letter string) string {
	l := func(n int) string { return strings.Repeat(letter, n) }
	return l(6) + "-" + l(4) + "-" + l(4) + "-" + l(4) + "-" + l(4) + "-" + l(4) + "-" + l(6)
}

// volume is the text of a volume of one segment of four extents.
func volume(name, letter, status, segment string) string {
	return name + ` {
		id = "` + uuid(letter) + `"
		status = [` + status + `]
		segment_count = 1
		segment1 {
			start_extent = 0
			extent_count = 4
			` + segment + `
		}
	}
	`
}

const (
	visible = `"READ", "WRITE", "VISIBLE"`
	hidden  = `"READ", "WRITE"`
)

func linear(at string) string {
	return `type = "striped" stripe_count = 1 stripes = ["pv0", ` + at + `]`
}

// TestTypes has LVM accept volumes of types that are refused here, each by its
// name, while the plain volume beside them is read.
func TestTypes(t *testing.T) {
	plain := volume("plain", "P", visible, linear("20"))
	for name, c := range map[string]struct{ volumes, refused, want string }{
		"raid1": {volume("v", "a", visible, `type = "raid1" device_count = 2 region_size = 1024 raids = ["v_rmeta_0", "v_rimage_0", "v_rmeta_1", "v_rimage_1"]`) +
			volume("v_rimage_0", "b", hidden, linear("0")) + volume("v_rimage_1", "c", hidden, linear("4")) +
			volume("v_rmeta_0", "d", hidden, linear("8")) + volume("v_rmeta_1", "e", hidden, linear("12")), "v", "RAID of type raid1"},
		"mirror": {volume("v", "a", visible, `type = "mirror" mirror_count = 2 region_size = 128 mirrors = ["v_mimage_0", 0, "v_mimage_1", 0]`) +
			volume("v_mimage_0", "b", hidden, linear("0")) + volume("v_mimage_1", "c", hidden, linear("4")), "v", "a mirror"},
		"snapshot": {volume("v", "a", visible, linear("0")) + volume("copy", "b", visible, linear("4")) +
			volume("snapshot0", "c", hidden, `type = "snapshot" chunk_size = 8 origin = "v" cow_store = "copy"`), "copy", "a snapshot"},
		"merging": {volume("v", "a", visible, linear("0")) + volume("copy", "b", visible, linear("4")) +
			volume("snapshot0", "c", hidden, `type = "snapshot" chunk_size = 8 origin = "v" merging_store = "copy"`), "v", "a snapshot is being merged"},
		"thin": {volume("v", "a", visible, `type = "thin" thin_pool = "pool" transaction_id = 0 device_id = 1`) +
			volume("pool", "b", visible, `type = "thin-pool" metadata = "pool_tmeta" pool = "pool_tdata" transaction_id = 1 chunk_size = 128 discards = "passdown" zero_new_blocks = 1`) +
			volume("pool_tmeta", "c", hidden, linear("0")) + volume("pool_tdata", "d", hidden, linear("4")), "v", "a thin volume"},
		"cache": {volume("v", "a", visible, `type = "cache" cache_pool = "pool" origin = "v_corig"`) +
			volume("v_corig", "b", hidden, linear("8")) +
			volume("pool", "c", hidden, `type = "cache-pool" data = "pool_cdata" metadata = "pool_cmeta" chunk_size = 128 metadata_format = 2 cache_mode = "writethrough" policy = "smq"`) +
			volume("pool_cmeta", "d", hidden, linear("0")) + volume("pool_cdata", "e", hidden, linear("4")), "v", "cached"},
		"writecache": {volume("v", "a", visible, `type = "writecache" writecache = "fast" origin = "v_wcorig" writecache_block_size = 4096`) +
			volume("v_wcorig", "b", hidden, linear("8")) + volume("fast", "c", hidden, linear("0")), "v", "writes are cached"},
		"integrity": {volume("v", "a", visible, `type = "integrity" origin = "v_iorig" data_sectors = 32768 mode = "J" tag_size = 4 block_size = 512 internal_hash = "crc32c" meta_dev = "v_imeta"`) +
			volume("v_iorig", "b", hidden, linear("8")) + volume("v_imeta", "c", hidden, linear("0")), "v", "integrity checks"},
		"pvmove": {volume("v", "a", visible+`, "LOCKED"`, `type = "striped" stripe_count = 1 stripes = ["pvmove0", 0]`) +
			volume("pvmove0", "b", hidden+`, "PVMOVE", "LOCKED"`, `type = "mirror" mirror_count = 2 region_size = 128 extents_moved = 0 mirrors = ["pv0", 0, "pv1", 0]`), "v", "pvmove"},
		"zero":  {volume("v", "a", visible, `type = "zero"`), "v", `its type is "zero"`},
		"error": {volume("v", "a", visible, `type = "error"`), "v", `its type is "error"`},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 4<<20, 4<<20)
			r.Run("vgcreate", "-s", "64k", "vg", r.devices[0], r.devices[1])
			r.restore("vg", c.volumes+plain)
			if *update {
				r.Run("vgcfgbackup", "-f", "testdata/"+name+".txt", "vg")
			}
			g, err := r.open(0, 1)
			if err != nil {
				t.Fatal(err)
			}
			listed := strings.Fields(r.Run("lvs", "--noheadings", "-o", "lv_name", "vg"))
			if len(g.Volumes) != len(listed) {
				t.Errorf("%d volumes, but lvs lists %q", len(g.Volumes), listed)
			}
			if _, err := g.Volume("plain"); err != nil {
				t.Errorf("the plain volume: %v", err)
			}
			var detail *disk.Error
			if _, err := g.Volume(c.refused); !errors.As(err, &detail) || !errors.Is(err, disk.ErrUnsupported) || !strings.Contains(detail.Detail, c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if _, err := g.Volume("absent"); !errors.Is(err, disk.ErrNotExist) {
				t.Errorf("a volume that is not there: %v", err)
			}
		})
	}
}

// TestExported opens a group that the guest put away.
func TestExported(t *testing.T) {
	r := newRig(t, 4<<20)
	r.Run("vgcreate", "-s", "64k", "vg", r.devices[0])
	r.Create("-n", "v", "-l", "4", "vg")
	r.Run("vgexport", "vg")
	g, err := r.open(0)
	if err != nil || len(g.Remarks) != 1 || !strings.Contains(g.Remarks[0], "exported") {
		t.Fatalf("%+v, %v", g, err)
	}
	if _, err := g.Volume("v"); err != nil {
		t.Error(err)
	}
}

// TestNoGroup opens a physical volume that belongs to none.
func TestNoGroup(t *testing.T) {
	r := newRig(t, 4<<20)
	r.Run("pvcreate", r.devices[0])
	pv, err := lvm.Identify(r.disks()[0])
	if err != nil || pv.UUID == "" || pv.GroupName != "" || pv.Members != nil {
		t.Errorf("%+v, %v", pv, err)
	}
	if _, err := r.open(0); !errors.Is(err, disk.ErrNotExist) {
		t.Errorf("its group: %v", err)
	}
}
