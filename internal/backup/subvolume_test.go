package backup_test

import (
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/pattern"
)

// TestSuperseded: a snapshot is left out only if what it tells of lives on.
func TestSuperseded(t *testing.T) {
	u := func(n byte) [16]byte { return [16]byte{n} }
	volume := func(id uint64, parent uint64) disk.Subvolume {
		return disk.Subvolume{ID: id, Parent: parent, UUID: u(byte(id)), Root: id}
	}
	snapshot := func(id, parent uint64, of byte) disk.Subvolume {
		s := volume(id, parent)
		s.Origin, s.ReadOnly = u(of), true
		s.Made, s.Changed = id, id-1
		return s
	}
	with := func(s disk.Subvolume, change func(*disk.Subvolume)) disk.Subvolume {
		change(&s)
		return s
	}
	received := func(s *disk.Subvolume) { s.Received = u(200) }
	writable := func(s *disk.Subvolume) { s.ReadOnly = false }
	changed := func(at uint64) func(*disk.Subvolume) { return func(s *disk.Subvolume) { s.Changed = at } }
	chosen := func(s *disk.Subvolume) { s.Default = true }
	for name, c := range map[string]struct {
		list []disk.Subvolume
		want []uint64
	}{
		"none":               {[]disk.Subvolume{volume(5, 0)}, nil},
		"snapper":            {[]disk.Subvolume{volume(5, 0), volume(10, 5), snapshot(11, 10, 10), snapshot(12, 10, 10)}, []uint64{11, 12}},
		"of the top level":   {[]disk.Subvolume{volume(5, 0), snapshot(11, 5, 5)}, []uint64{11}},
		"read-only, no copy": {[]disk.Subvolume{volume(5, 0), with(volume(10, 5), func(s *disk.Subvolume) { s.ReadOnly = true })}, nil},
		"writable":           {[]disk.Subvolume{volume(5, 0), volume(10, 5), with(snapshot(11, 5, 10), writable)}, nil},
		"the original is gone": {
			[]disk.Subvolume{volume(5, 0), snapshot(11, 5, 10), snapshot(12, 5, 10), snapshot(13, 5, 12)}, nil},
		"rolled back": { // 14 was made of 12, and 10 removed, of which 13 alone tells the last
			[]disk.Subvolume{volume(5, 0), snapshot(11, 5, 10), snapshot(12, 5, 10), snapshot(13, 5, 10), with(snapshot(14, 5, 12), writable)}, []uint64{11, 12}},
		"changed after it was made": { // as a template that was made read-only when it was ready
			[]disk.Subvolume{volume(5, 0), volume(10, 5), with(snapshot(11, 5, 10), changed(12))}, nil},
		"in use as it was after its change": {
			[]disk.Subvolume{volume(5, 0), with(snapshot(11, 5, 10), changed(12)), with(snapshot(13, 5, 11), writable)}, []uint64{11}},
		"changed again": {
			[]disk.Subvolume{volume(5, 0), with(snapshot(11, 5, 10), changed(14)), with(snapshot(13, 5, 11), writable)}, nil},
		"the default is read-only": { // as in MicroOS
			[]disk.Subvolume{volume(5, 0), snapshot(11, 5, 10), with(snapshot(12, 5, 11), chosen), snapshot(13, 5, 12)}, []uint64{11, 13}},
		"received": {
			[]disk.Subvolume{volume(5, 0), with(snapshot(11, 5, 10), received), with(snapshot(12, 5, 11), received), with(snapshot(13, 5, 12), writable)}, nil},
		"something lies in it": {
			[]disk.Subvolume{volume(5, 0), volume(10, 5), snapshot(11, 5, 10), snapshot(12, 11, 10), volume(13, 12), snapshot(14, 12, 10)}, []uint64{14}},
		"another family": {
			[]disk.Subvolume{volume(5, 0), volume(10, 5), snapshot(11, 5, 10), snapshot(21, 5, 20)}, []uint64{11}},
		"mounted": { // and 32 tells what that was
			[]disk.Subvolume{volume(5, 0), volume(10, 5), snapshot(31, 5, 10), snapshot(32, 5, 31), snapshot(33, 5, 10)}, []uint64{32, 33}},
		"in a circle": {
			[]disk.Subvolume{volume(5, 0), with(volume(10, 11), func(s *disk.Subvolume) { s.Origin = u(11) }), snapshot(11, 10, 10)}, nil},
	} {
		var got []uint64
		for _, s := range backup.Superseded(c.list, backup.Use{Mounted: []uint64{31}}) {
			got = append(got, s.ID)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %d are left out, want %d", name, got, c.want)
		}
	}
}

// TestSupersededByWhatIsBackedUp: a snapshot is all there is of an original that is left
// out, and is not left out itself.
func TestSupersededByWhatIsBackedUp(t *testing.T) {
	list := []disk.Subvolume{
		{ID: 5, UUID: [16]byte{5}},
		{ID: 10, Parent: 5, UUID: [16]byte{10}, Path: []byte("vol/home")},
		{ID: 11, Parent: 5, UUID: [16]byte{11}, Path: []byte("snapshots/home"), Origin: [16]byte{10}, ReadOnly: true, Made: 11},
	}
	for _, c := range []struct {
		include, exclude []string
		left             bool
	}{
		{nil, nil, true},
		{nil, []string{"/vol/other/", "*.tmp", "/vol/home/cache/*"}, true},
		{nil, []string{"/vol/home"}, false},
		{nil, []string{"/vol/"}, false},
		{nil, []string{"home", "!/snapshots/home"}, false},
		{nil, []string{"/vol/home/*"}, false},
		{nil, []string{"/vol/**"}, false},
		{[]string{"/vol", "/snapshots"}, nil, true},
		{[]string{"/snapshots"}, nil, false},
		{[]string{"/vol/home/documents", "/snapshots"}, nil, false},
	} {
		lists := make([]*pattern.List, 2)
		for i, text := range [][]string{c.include, c.exclude} {
			var err error
			if lists[i], err = pattern.Compile(text); err != nil {
				t.Fatal(err)
			}
		}
		got := backup.Superseded(list, backup.Use{Include: lists[0], Exclude: lists[1]})
		if c.left != (len(got) == 1) {
			t.Errorf("include %q, exclude %q: left out are %v", c.include, c.exclude, got)
		}
	}
}
