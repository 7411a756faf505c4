package lvm_test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
	"github.com/drydock-vm/drydock/internal/testlvm"
	"github.com/drydock-vm/drydock/internal/testmount"
)

// rig is a few disks on which LVM's own tools work.
type rig struct {
	*testlvm.LVM
	t       *testing.T
	paths   []string
	devices []string
}

// newRig makes disks of the given sizes full of random bytes, so that each
// place on each of them is recognised.
func newRig(t *testing.T, sizes ...int64) *rig {
	t.Helper()
	r := &rig{t: t}
	random := rand.NewChaCha8([32]byte{1})
	for _, size := range sizes {
		path := disktest.EmptyImage(t, size)
		content := make([]byte, size)
		random.Read(content)
		clear(content[:1<<20])
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		device := testmount.Loop(t, path, 0, 0)
		r.paths, r.devices = append(r.paths, path), append(r.devices, device)
	}
	r.LVM = testlvm.New(t, r.devices...)
	return r
}

// disks returns what is on the disks now.
func (r *rig) disks() []disk.Sparse {
	r.t.Helper()
	var list []disk.Sparse
	for i, path := range r.paths {
		disktest.Run(r.t, "blockdev", "--flushbufs", r.devices[i])
		raw, err := os.ReadFile(path)
		if err != nil {
			r.t.Fatal(err)
		}
		list = append(list, disktest.Mem(raw))
	}
	return list
}

// reported is what lvs says of one segment.
type reported struct {
	Name   string `json:"lv_name"`
	UUID   string `json:"lv_uuid"`
	Size   string `json:"lv_size"`
	Type   string `json:"segtype"`
	Start  string `json:"seg_start"`
	Length string `json:"seg_size"`
	Chunk  string `json:"stripe_size"`
	Ranges string `json:"seg_pe_ranges"`
	Extent string `json:"vg_extent_size"`
}

// report lists all segments of all volumes of a group, in order.
func (r *rig) report(group string) []reported {
	r.t.Helper()
	out := r.Run("lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-O", "lv_name,seg_start",
		"-o", "lv_name,lv_uuid,lv_size,segtype,seg_start,seg_size,stripe_size,seg_pe_ranges,vg_extent_size", group)
	var parsed struct {
		Report []struct{ LV []reported }
	}
	if err := json.Unmarshal([]byte(out), &parsed); err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
	return parsed.Report[0].LV
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// content puts a segment together as lvs says that it lies.
func (r *rig) content(disks []disk.Sparse, s reported) []byte {
	r.t.Helper()
	extent, length := number(r.t, s.Extent), number(r.t, s.Length)
	var legs [][]byte
	for _, part := range strings.Fields(s.Ranges) {
		device, extents, _ := strings.Cut(part, ":")
		first, _, _ := strings.Cut(extents, "-")
		start := number(r.t, strings.TrimSpace(r.Run("pvs", "--noheadings", "--units", "b", "--nosuffix", "-o", "pe_start", device)))
		for i, d := range r.devices {
			if d == device {
				legs = append(legs, disks[i].(disktest.Mem)[start+number(r.t, first)*extent:])
			}
		}
	}
	if len(legs) == 1 {
		return legs[0][:length]
	}
	chunk := number(r.t, s.Chunk)
	out := make([]byte, 0, length)
	for i := int64(0); int64(len(out)) < length; i++ {
		row := i / int64(len(legs)) * chunk
		out = append(out, legs[i%int64(len(legs))][row:row+chunk]...)
	}
	return out
}
