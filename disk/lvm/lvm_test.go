package lvm_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/disk/lvm"
)

// TestTools compares volumes of many forms with where lvs says that they lie.
func TestTools(t *testing.T) {
	for name, make := range map[string]func(*rig){
		"one": func(r *rig) {
			r.Run("vgcreate", "-s", "512k", "vg", r.devices[0])
			r.Create("-n", "root", "-L", "2M", "vg")
			r.Create("-n", "swap", "-L", "1M", "vg")
			r.Run("lvextend", "-L", "4M", "vg/root") // in two segments
		},
		"stripes": func(r *rig) {
			r.Run("vgcreate", append([]string{"-s", "256k", "my-vg.2+x_y"}, r.devices...)...)
			r.Create("-n", "two", "-i", "2", "-I", "4k", "-l", "6", "my-vg.2+x_y")
			r.Create("-n", "three", "-i", "3", "-I", "512k", "-l", "9", "my-vg.2+x_y")
			r.Create("-n", "spread", "-l", "20", "my-vg.2+x_y", r.devices[2], r.devices[0])
			r.Run("lvextend", "-i", "2", "-I", "64k", "-l", "+4", "my-vg.2+x_y/two")
			r.Run("lvextend", "-i", "1", "-l", "+3", "my-vg.2+x_y/two")
		},
		"few copies": func(r *rig) {
			r.Run("pvcreate", "--pvmetadatacopies", "0", r.devices[0])
			r.Run("pvcreate", "--pvmetadatacopies", "2", "--labelsector", "3", r.devices[1])
			r.Run("vgcreate", "-s", "1M", "vg", r.devices[0], r.devices[1])
			r.Create("-n", "all", "-l", "100%FREE", "vg")
		},
		"ignored areas": func(r *rig) {
			r.Run("pvcreate", "--bootloaderareasize", "256k", "--dataalignmentoffset", "7k", r.devices[0])
			r.Run("vgcreate", "-s", "128k", "vg", r.devices[0], r.devices[1])
			r.Create("-n", "before", "-L", "1M", "vg")
			r.Run("pvchange", "--metadataignore", "y", r.devices[0]) // it keeps what was true before
			r.Create("-n", "after", "-L", "1M", "vg", r.devices[0])
			r.Run("lvremove", "-f", "vg/before")
		},
		"shrunk": func(r *rig) {
			r.Run("pvcreate", "-y", "--setphysicalvolumesize", "4M", r.devices[0])
			r.Run("vgcreate", "-s", "32k", "vg", r.devices[0])
			r.Create("-n", "all", "-l", "100%FREE", "vg")
			r.Run("lvreduce", "-f", "-l", "-7", "vg/all")
		},
		"small areas": func(r *rig) { // the ring wraps again and again
			r.Run("pvcreate", "--metadatasize", "8k", "--dataalignment", "64k", r.devices[0])
			r.Run("vgcreate", "-s", "64k", "vg", r.devices[0])
			for i := range 7 {
				r.Create("-n", fmt.Sprintf("lv%d", i), "-l", "3", "vg")
				r.Run("lvextend", "-l", "5", fmt.Sprintf("vg/lv%d", i))
				checkGroup(t, r, "vg", 1)
			}
		},
		"tags and names": func(r *rig) {
			r.Run("vgcreate", "--addtag", "a/b=c&d", "-s", "1M", "0.vg", r.devices[0], r.devices[1])
			r.Create("--addtag", "@t#u", "-n", "volumes", "-L", "3M", "0.vg")
			r.Run("lvrename", "0.vg/volumes", "0")
			r.Run("vgreduce", "0.vg", r.devices[1])
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 8<<20, 12<<20, 6<<20)
			make(r)
			group := strings.TrimSpace(r.Run("vgs", "--noheadings", "-o", "vg_name"))
			members := strings.TrimSpace(r.Run("vgs", "--noheadings", "-o", "pv_count"))
			checkGroup(t, r, group, int(number(t, members)))
		})
	}
}

// checkGroup compares all volumes of a group with the tools' report.
func checkGroup(t *testing.T, r *rig, group string, members int) {
	t.Helper()
	disks := r.disks()
	var pvs []disk.Sparse
	for i, d := range disks {
		pv, err := lvm.Identify(d)
		if errors.Is(err, disk.ErrNotExist) {
			continue
		}
		if want := strings.TrimSpace(r.Run("pvs", "--noheadings", "-o", "pv_uuid", r.devices[i])); err != nil || pv.UUID != want {
			t.Fatalf("%s: %+v, %v, want UUID %s", r.devices[i], pv, err, want)
		}
		if pv.GroupName != "" && (pv.GroupName != group || len(pv.Members) != members) {
			t.Errorf("%+v, want group %s of %d", pv, group, members)
		}
		if r.inGroup(i, group) {
			pvs = append([]disk.Sparse{d}, pvs...) // in no order in particular
		}
	}
	g, err := lvm.OpenGroup(pvs)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimSpace(r.Run("vgs", "--noheadings", "-o", "vg_uuid", group)); g.Name != group || g.UUID != want || len(g.Remarks) != 0 {
		t.Errorf("group %s, %s, remarks %q; want %s, %s", g.Name, g.UUID, g.Remarks, group, want)
	}
	compareVolumes(t, r, g, disks, pvs)
}

func (r *rig) inGroup(device int, group string) bool {
	return strings.TrimSpace(r.Run("pvs", "--noheadings", "-o", "vg_name", r.devices[device])) == group
}

func compareVolumes(t *testing.T, r *rig, g *lvm.Group, disks, pvs []disk.Sparse) {
	t.Helper()
	want := make(map[string][]byte)
	uuids := make(map[string]string)
	for _, s := range r.report(g.Name) {
		want[s.Name] = append(want[s.Name], r.content(disks, s)...)
		uuids[s.Name] = s.UUID
	}
	if len(g.Volumes) != len(want) || len(want) == 0 {
		t.Errorf("%d volumes, want %d", len(g.Volumes), len(want))
	}
	for _, v := range g.Volumes {
		if v.UUID != uuids[v.Name] || v.Size != int64(len(want[v.Name])) || v.Err != nil || len(v.Devices) == 0 {
			t.Errorf("%+v, want UUID %s and size %d", v, uuids[v.Name], len(want[v.Name]))
			continue
		}
		d, err := g.Volume(v.Name)
		if err != nil {
			t.Fatal(err)
		}
		disktest.Check(t, d, want[v.Name])
		checkLocations(t, d, v, pvs, want[v.Name])
	}
}

// checkLocations reads a volume where Locate says that it lies.
func checkLocations(t *testing.T, d disk.Sparse, v lvm.Volume, pvs []disk.Sparse, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	var used []int
	next := int64(0)
	err := d.(disk.Locator).Locate(0, d.Size(), func(l disk.Location) error {
		if l.Offset != next || l.Length <= 0 {
			t.Fatalf("location %+v, where %d is due", l, next)
		}
		next += l.Length
		used = append(used, l.Device)
		_, err := pvs[l.Device].ReadAt(got[l.Offset:next], l.At)
		return err
	})
	slices.Sort(used)
	if err != nil || next != d.Size() || string(got) != string(want) || !slices.Equal(slices.Compact(used), v.Devices) {
		t.Errorf("volume %s: located up to %d of %d on %v of %v: %v, or other content", v.Name, next, d.Size(), used, v.Devices, err)
	}
}

// open opens a group of which the disks with the given numbers are there.
func (r *rig) open(which ...int) (*lvm.Group, error) {
	all := r.disks()
	var pvs []disk.Sparse
	for _, i := range which {
		pvs = append(pvs, all[i])
	}
	return lvm.OpenGroup(pvs)
}

// TestMissing opens a group without one of its disks, with an old state of
// one, and with one of them twice.
func TestMissing(t *testing.T) {
	r := newRig(t, 8<<20, 8<<20, 8<<20)
	r.Run("vgcreate", "-s", "256k", "vg", r.devices[0], r.devices[1])
	r.Create("-n", "first", "-L", "2M", "vg", r.devices[0])
	r.Create("-n", "second", "-L", "2M", "vg", r.devices[1])
	r.Create("-n", "both", "-i", "2", "-L", "2M", "vg")
	old := r.disks()
	errs := func(g *lvm.Group, err error) []error {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if len(g.Remarks) == 0 {
			t.Error("no remark")
		}
		var list []error
		for _, v := range g.Volumes {
			_, err := g.Volume(v.Name)
			if err != v.Err {
				t.Errorf("%s: %v, and %v", v.Name, v.Err, err)
			}
			list = append(list, err)
		}
		return list
	}
	if got := errs(r.open(1)); !errors.Is(got[0], disk.ErrNotExist) || got[1] != nil || !errors.Is(got[2], disk.ErrNotExist) {
		t.Errorf("without the first disk: %v", got)
	}
	if got := errs(r.open(0, 1, 1)); got[0] != nil || !errors.Is(got[1], disk.ErrUnsupported) || !errors.Is(got[2], disk.ErrUnsupported) {
		t.Errorf("with the second disk twice: %v", got)
	}
	r.Create("-n", "new", "-L", "1M", "vg", r.devices[0])
	now := r.disks()
	for _, pvs := range [][]disk.Sparse{{old[0], now[1]}, {now[1], old[0]}} {
		if got := errs(lvm.OpenGroup(pvs)); len(got) != 4 || got[3] != nil {
			t.Errorf("with an old copy of the metadata: %v", got)
		}
	}
	r.Run("vgextend", "vg", r.devices[2])
	withThird := r.disks()
	r.Run("vgreduce", "vg", r.devices[2])
	now = r.disks()
	if got := errs(lvm.OpenGroup([]disk.Sparse{now[0], withThird[2], now[1]})); len(got) != 4 || slices.IndexFunc(got, func(e error) bool { return e != nil }) >= 0 {
		t.Errorf("with a disk that is no longer a member: %v", got)
	}
	r.Run("vgremove", "-f", "vg")
	r.Run("vgcreate", "vg", r.devices[0], r.devices[1])
	if _, err := lvm.OpenGroup([]disk.Sparse{now[0], r.disks()[1]}); !errors.Is(err, disk.ErrCorrupt) {
		t.Errorf("two groups of one name: %v", err)
	}
}
