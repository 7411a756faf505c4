package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drydock-vm/drydock/disk"
)

func requests() map[string]interface{ Append([]byte) []byte } {
	return map[string]interface{ Append([]byte) []byte }{
		"setup": Setup{Files: 2, Memory: 1 << 28, Namespaces: true, Served: true},
		"fetch": Fetch{File: 1, Off: 4096, Length: MaxFetch},
		"open": Open{Disks: []Disk{
			{Name: "a", SectorSize: 512, Images: []Image{{Format: FormatQcow2, Size: 5, Snapshot: "a", DataSize: 7}, {Format: FormatRaw, Size: 9, DataSize: -1}}},
			{Name: "b", SectorSize: 4096, Images: []Image{{Format: FormatRaw, DataSize: -1, Served: true}}},
		}},
		"list":     List{Number: 2, Skip: 7},
		"guest":    Guest{Root: "vg/root"},
		"mount":    Mount{Volume: 3},
		"unused":   Unused{Number: 1, From: 4096},
		"places":   Places{Number: 2, From: 4096},
		"node":     Node{Tree: 1, Ino: 12},
		"readdir":  ReadDir{Node: Node{Ino: 2}, Skip: 9, Names: true, Contents: true, Walk: WalkNames, Then: []uint64{3, 4}},
		"describe": Describe{Tree: 1, Contents: true, Inos: []uint64{12, 13}},
		"read":     Read{Object: Object{Kind: ObjectFile, Node: Node{Tree: 1, Ino: 12}}, Off: 4096, Length: 65536, Slot: 8},
		"pieces":   Pieces{Object: Object{Kind: ObjectVolume, Node: Node{Tree: 1}}, Length: 1 << 40},
		"many":     ReadMany{Tree: 1, Slot: 1, Files: []SmallFile{{Ino: 12, Size: 1}, {Ino: 13, Size: 100}}},
	}
}

// reencode decodes a request and encodes it again.
func reencode(name string, b []byte) ([]byte, error) {
	switch name {
	case "setup":
		return again(DecodeSetup, b)
	case "open":
		return again(DecodeOpen, b)
	case "fetch":
		return again(func(b []byte) (Fetch, error) { return DecodeFetch(b, []int64{-1, 1 << 20}) }, b)
	case "list":
		return again(DecodeList, b)
	case "guest":
		return again(DecodeGuest, b)
	case "dirty":
		return again(DecodeDirty, b)
	case "unused":
		return again(DecodeUnused, b)
	case "places":
		return again(DecodePlaces, b)
	case "mount":
		return again(DecodeMount, b)
	case "node":
		return again(DecodeNode, b)
	case "readdir":
		return again(DecodeReadDir, b)
	case "describe":
		return again(DecodeDescribe, b)
	case "read":
		return again(DecodeRead, b)
	case "pieces":
		return again(DecodePiecesRequest, b)
	}
	return again(DecodeReadMany, b)
}

func again[R interface{ Append([]byte) []byte }](decode func([]byte) (R, error), b []byte) ([]byte, error) {
	r, err := decode(b)
	if err != nil {
		return nil, err
	}
	return r.Append(nil), nil
}

// Whole requests come back as they were; cut ones, and ones with more behind,
// are refused.
func TestRequests(t *testing.T) {
	for name, r := range requests() {
		b := r.Append(nil)
		checkExact(t, name, b, func(b []byte) ([]byte, error) { return reencode(name, b) })
	}
}

func checkExact(t *testing.T, name string, b []byte, again func([]byte) ([]byte, error)) {
	t.Helper()
	if got, err := again(b); err != nil || !bytes.Equal(got, b) {
		t.Errorf("%s: % x becomes % x, %v", name, b, got, err)
	}
	for n := range b {
		if _, err := again(b[:n]); !errors.Is(err, ErrBroken) {
			t.Errorf("%s: cut at %d: %v", name, n, err)
		}
	}
	if _, err := again(append(bytes.Clone(b), 0)); !errors.Is(err, ErrBroken) {
		t.Errorf("%s: with a byte behind it: %v", name, err)
	}
}

func TestRequestLimits(t *testing.T) {
	file := Object{Kind: ObjectFile, Node: Node{Ino: 12}}
	for name, c := range map[string]struct {
		kind string
		r    interface{ Append([]byte) []byte }
	}{
		"no disk":              {"open", Open{}},
		"no image":             {"open", Open{Disks: []Disk{{SectorSize: 512}}}},
		"sector size":          {"open", openOne(513, Image{Format: FormatRaw})},
		"format":               {"open", openOne(512, Image{Format: 3})},
		"negative size":        {"open", openOne(512, Image{Format: FormatRaw, Size: -1})},
		"negative data size":   {"open", openOne(512, Image{Format: FormatRaw, DataSize: -2})},
		"many images":          {"open", openOne(512, slices.Repeat([]Image{{Format: FormatRaw}}, MaxImages+1)...)},
		"many disks":           {"open", Open{Disks: slices.Repeat(openOne(512, Image{Format: FormatRaw}).Disks, MaxDisks+1)}},
		"many files":           {"open", Open{Disks: slices.Repeat(openOne(512, slices.Repeat([]Image{{Format: FormatRaw}}, MaxImages)...).Disks, MaxFiles/MaxImages)}},
		"fetch of a file":      {"fetch", Fetch{File: 0, Length: 1}},
		"fetch of no file":     {"fetch", Fetch{File: 2, Length: 1}},
		"fetch of nothing":     {"fetch", Fetch{File: 1}},
		"fetch of too much":    {"fetch", Fetch{File: 1, Length: MaxFetch + 1}},
		"fetch beyond the end": {"fetch", Fetch{File: 1, Off: 1<<20 - 1, Length: 2}},
		"fetch from before":    {"fetch", Fetch{File: 1, Off: -1, Length: 1}},
		"fetch from far away":  {"fetch", Fetch{File: 1, Off: 1<<63 - 1, Length: MaxFetch}},
		"no memory":            {"setup", Setup{}},
		"too many files":       {"setup", Setup{Files: MaxFiles + 1, Memory: 1}},
		"empty read":           {"read", Read{Object: file, Slot: 1}},
		"large read":           {"read", Read{Object: file, Length: MaxData + 1, Slot: 1}},
		"large read inline":    {"read", Read{Object: file, Length: InlineData + 1}},
		"no such slot":         {"read", Read{Object: file, Length: 1, Slot: Slots + 1}},
		"negative offset":      {"read", Read{Object: file, Off: -1, Length: 1}},
		"no object":            {"read", Read{Length: 1}},
		"volume with inode":    {"read", Read{Object: Object{Kind: ObjectVolume, Node: Node{Ino: 1}}, Length: 1}},
		"disk with inode":      {"read", Read{Object: Object{Kind: ObjectDisk, Node: Node{Ino: 1}}, Length: 1}},
		"no pieces":            {"pieces", Pieces{Object: file}},
		"pieces that overflow": {"pieces", Pieces{Object: file, Off: 1<<63 - 1, Length: 2}},
		"no files":             {"many", ReadMany{Slot: 1}},
		"files without slot":   {"many", ReadMany{Files: []SmallFile{{Ino: 1, Size: 1}}}},
		"an empty file":        {"many", ReadMany{Slot: 1, Files: []SmallFile{{Ino: 1}}}},
		"too much":             {"many", ReadMany{Slot: 1, Files: []SmallFile{{Ino: 1, Size: MaxData}, {Ino: 2, Size: 1}}}},
		"walk":                 {"readdir", ReadDir{Walk: 3}},
		"others without walk":  {"readdir", ReadDir{Then: []uint64{1}}},
		"no inodes":            {"describe", Describe{}},
		"many inodes":          {"describe", Describe{Inos: make([]uint64, MaxDescribe+1)}},
		"many others":          {"readdir", ReadDir{Walk: WalkDisk, Then: make([]uint64, MaxThen+1)}},
	} {
		if _, err := reencode(c.kind, c.r.Append(nil)); !errors.Is(err, ErrBroken) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func openOne(sectorSize uint16, images ...Image) Open {
	return Open{Disks: []Disk{{SectorSize: sectorSize, Images: images}}}
}

func sampleInode() disk.Inode {
	return disk.Inode{
		Ino: 12, Generation: 1, Mode: disk.ModeRegular | 0o4755, UID: 1, GID: 2, Links: 3, Size: 4,
		Rdev: disk.Device{Major: 5, Minor: 6}, Flags: disk.FlagAppend, Subvolume: 7,
		Access: disk.Time{Sec: -1, Nsec: 999_999_999}, Birth: disk.Time{Sec: 1 << 40},
	}
}

func samplePages() []DirPage {
	n := sampleInode()
	link := disk.Inode{Ino: 14, Mode: disk.ModeSymlink | 0o777}
	return []DirPage{
		{Ino: 2, Last: true, Entries: []Entry{
			{DirEntry: disk.DirEntry{Name: []byte("a"), Ino: 12, Type: disk.ModeRegular}, Inode: &n, HasXattrs: true,
				Xattrs: []disk.Xattr{{Name: []byte("user.a"), Value: []byte("b")}, {Name: []byte("user.c"), Value: []byte{}}}},
			{DirEntry: disk.DirEntry{Name: []byte("b\xff"), Ino: 13}},
			{DirEntry: disk.DirEntry{Name: []byte("l"), Ino: 14}, Inode: &link, Target: []byte("a")},
			{DirEntry: disk.DirEntry{Name: []byte("p"), Ino: 12}, Inode: &n, Pieces: []Piece{
				{Extent: disk.Extent{Length: 1, Kind: disk.ExtentHole}, File: NoFile},
				{Extent: disk.Extent{Offset: 1, Length: 3}, File: 1, At: 97},
			}},
			{DirEntry: disk.DirEntry{Name: []byte("c"), Ino: 12}, Inode: &n, Content: []byte("four")},
		}},
		{Ino: 15, Last: true, Entries: []Entry{}},
	}
}

func sampleInfo() disk.FilesystemInfo {
	return disk.FilesystemInfo{
		Type: "ext4", Label: []byte("x"), UUID: [16]byte{9}, Root: 2, BlockSize: 4096, Size: 1 << 20, InodeCount: 5,
		Remarks: []string{"the journal was replayed", "that is all"},
	}
}

func sampleVolumes() []Volume {
	return []Volume{
		{Name: "a", Kind: 1, Parent: NoParent, Size: 1 << 30, Table: "gpt", Remarks: []string{"the backup is damaged"}},
		{Name: "a-part1", Kind: 2, Parent: 7, Offset: 512, Size: 1024, Number: 1, PartType: "t", PartUUID: "u", PartLabel: []byte("n\xff"),
			Content: "ext4", Label: []byte("l"), UUID: "id", Readable: true},
		{Name: "vg/lv", Kind: 3, Parent: NoParent, Members: []uint32{7, 8}, Err: &Error{Text: "lost"}},
	}
}

func appendPages(pages []DirPage) []byte {
	w := NewDirPagesWriter(nil)
	for _, p := range pages {
		w.Begin(p.Ino)
		for i := range p.Entries {
			w.Add(&p.Entries[i])
		}
		w.End(p.Last)
	}
	return w.Finish()
}

var (
	testPieces  = Pieces{Off: 4096, Length: 1 << 20}
	testFiles   = []int64{0, 100, 1024}
	testMany    = ReadMany{Files: []SmallFile{{Ino: 12, Size: 10}, {Ino: 13, Size: 20}, {Ino: 14, Size: 30}}}
	testData    = bytes.Repeat([]byte("0123456789"), 6)
	testInos    = Describe{Contents: true, Inos: []uint64{12, 13, 14, 12, 12}}
	testReadDir = ReadDir{Node: Node{Ino: 2}, Contents: true, Walk: WalkDisk}
)

// samplePlaces are those of a volume of 4746 bytes, from 4096 on.
func samplePlaces() PlacePage {
	return PlacePage{Last: true, List: []PlaceRun{{Disk: 1, At: 4400, Length: 600}, {Disk: NoDisk, Length: 50}}}
}

// TestPlacesLie: a worker cannot put a volume outside of the disks, or give it another
// size.
func TestPlacesLie(t *testing.T) {
	r, disks := Places{From: 4096}, []int64{1000, 5000}
	for name, change := range map[string]func(*PlacePage){
		"a disk that is not there": func(a *PlacePage) { a.List[0].Disk = 2 },
		"behind a disk":            func(a *PlacePage) { a.List[0].At++ },
		"in front of a disk":       func(a *PlacePage) { a.List[0].At = -1 },
		"no bytes":                 func(a *PlacePage) { a.List[1].Length = 0 },
		"more bytes":               func(a *PlacePage) { a.List[1].Length++ },
		"a number that runs over":  func(a *PlacePage) { a.List[0].Length, a.List[0].At = 1<<62, 1<<62 },
		"an end that is none":      func(a *PlacePage) { a.List = a.List[:1] },
		"no end":                   func(a *PlacePage) { a.Last = false },
		"nothing, and more":        func(a *PlacePage) { a.List, a.Last = nil, false },
	} {
		a := samplePlaces()
		change(&a)
		if _, err := DecodePlacePage(a.Append(nil), r, 4746, disks); !errors.Is(err, ErrBroken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// answers are sample answers.
func answers() map[string][]byte {
	n := sampleInode()
	many := AppendContent(nil, Content{Told: true, Extents: []disk.Extent{{Length: 4}, {Offset: 4, Length: 6, Kind: disk.ExtentHole}}})
	many = AppendContent(AppendContent(many, Content{}), Content{Told: true})
	var told []byte
	for _, e := range samplePages()[0].Entries {
		told = AppendDescription(told, &e)
	}
	return map[string][]byte{
		"measures":   AppendMeasures(nil, []Measure{{Name: "landlock", OK: true, Detail: "ABI 7"}, {Name: "seccomp"}}),
		"opened":     Opened{Disks: []OpenedDisk{{Size: 1 << 40, Version: 3, ClusterSize: 65536, Compression: "zstd", ExtendedL2: true}, {Dirty: true}}}.Append(nil),
		"snapshots":  SnapshotPage{Last: true, List: []Snapshot{{ID: []byte("1"), Name: []byte("\x1b"), Time: disk.Time{Sec: 1, Nsec: 2}, DiskSize: 3}}}.Append(nil),
		"unused":     UnusedPage{Last: true, List: []UnusedRange{{ByteRange{4096, 512}, false}, {ByteRange{8192, 1}, true}}, Kept: []error{disk.ErrLimit}}.Append(nil),
		"places":     samplePlaces().Append(nil),
		"volumes":    VolumePage{Last: true, List: sampleVolumes()}.Append(nil),
		"guest":      GuestInfo{Info: sampleInfo(), Mounts: []GuestMount{{Path: []byte("/"), Volume: 1}, {Path: []byte("/v\xff"), Volume: 2, Subvolume: 256}}}.Append(nil),
		"subvolumes": SubvolumePage{List: []disk.Subvolume{{ID: 5, Root: 5<<40 | 256}, {ID: 256, Parent: 5, Path: []byte("a/b"), Root: 256<<40 | 256, UUID: [16]byte{7}, Origin: [16]byte{8}, Received: [16]byte{9}, ReadOnly: true, Default: true}}}.Append(nil),
		"info":       AppendInfo(nil, sampleInfo()),
		"inode":      AppendInode(nil, &n),
		"xattrs":     AppendXattrs(nil, []disk.Xattr{{Name: []byte("security.capability"), Value: []byte{1, 2}}, {Name: []byte("user.x"), Value: []byte{}}}),
		"pages":      appendPages(samplePages()),
		"pieces":     AppendPieces(nil, []Piece{{Extent: disk.Extent{Length: 100}, File: 1}, {Extent: disk.Extent{Length: 8192, Kind: disk.ExtentZero}, File: NoFile}}),
		"many":       many,
		"told":       told,
		"error": AppendError(nil, &disk.Error{Layer: "ext4", Structure: "inode 12", Offset: -1, Detail: "d", Hint: "h",
			Err: &disk.Error{Layer: "qcow2", Structure: "L2 table", Offset: 4096, Err: disk.ErrCorrupt}}),
	}
}

// reanswer decodes an answer and encodes it again.
func reanswer(name string, b []byte) ([]byte, error) {
	switch name {
	case "measures":
		v, err := DecodeMeasures(b)
		return AppendMeasures(nil, v), err
	case "opened":
		v, err := DecodeOpened(b, 2)
		return v.Append(nil), err
	case "snapshots":
		v, err := DecodeSnapshotPage(b)
		return v.Append(nil), err
	case "volumes":
		v, err := DecodeVolumePage(b, 7)
		return v.Append(nil), err
	case "bitmaps":
		v, err := DecodeBitmapPage(b)
		return v.Append(nil), err
	case "dirty":
		v, err := DecodeDirtyPage(b, Dirty{From: 65536}, 1<<30)
		return v.Append(nil), err
	case "unused":
		v, err := DecodeUnusedPage(b, Unused{From: 4096}, 1<<30)
		return v.Append(nil), err
	case "places":
		v, err := DecodePlacePage(b, Places{From: 4096}, 4096+600+50, []int64{1000, 5000})
		return v.Append(nil), err
	case "guest":
		v, err := DecodeGuestInfo(b)
		return v.Append(nil), err
	case "subvolumes":
		v, err := DecodeSubvolumePage(b)
		return v.Append(nil), err
	case "info":
		v, err := DecodeInfo(b)
		return AppendInfo(nil, v), err
	case "inode":
		v, err := DecodeInode(b, 12)
		return AppendInode(nil, &v), err
	case "xattrs":
		v, err := DecodeXattrs(b)
		return AppendXattrs(nil, v), err
	case "pages":
		v, err := DecodeDirPages(b, testReadDir, testFiles)
		return appendPages(v), err
	case "pieces":
		v, err := DecodePieces(b, testPieces, testFiles)
		return AppendPieces(nil, v), err
	case "told":
		v, err := DecodeDescriptions(b, testInos, testFiles)
		var out []byte
		for i := range v {
			out = AppendDescription(out, &v[i])
		}
		return out, err
	case "many":
		v, err := DecodeMany(b, testMany, testData)
		var out []byte
		for _, c := range v {
			out = AppendContent(out, c)
		}
		return out, err
	}
	remote, err := DecodeError(b)
	if err != nil {
		return nil, err
	}
	return AppendError(nil, remote), nil
}

func TestAnswers(t *testing.T) {
	for name, b := range answers() {
		checkExact(t, name, b, func(b []byte) ([]byte, error) { return reanswer(name, b) })
	}
	pages, err := DecodeDirPages(answers()["pages"], testReadDir, testFiles)
	if diff := cmp.Diff(samplePages(), pages); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	entries := samplePages()[0].Entries
	for i := range entries {
		entries[i].DirEntry = disk.DirEntry{Ino: entries[i].Ino} // the asker has the rest
	}
	told, err := DecodeDescriptions(answers()["told"], testInos, testFiles)
	if diff := cmp.Diff(entries, told); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	files, err := DecodeMany(answers()["many"], testMany, testData)
	if err != nil || string(files[0].Data) != "0123456789" || files[1].Told || len(files[2].Data) != 30 || files[2].Extents != nil {
		t.Errorf("%+v, %v", files, err)
	}
}

// TestImpossiblePieces: the parent reads where a piece says, so a piece lies in a
// file, and within it.
func TestImpossiblePieces(t *testing.T) {
	data := func(length int64, file uint8, at int64) Piece {
		return Piece{Extent: disk.Extent{Length: length}, File: file, At: at}
	}
	hole := Piece{Extent: disk.Extent{Length: 1, Kind: disk.ExtentHole}, File: 1}
	summed := func(length int64, file uint8, at, block int64, sums int) Piece {
		p := data(length, file, at)
		p.Block, p.Sums = block, make([]byte, sums*sumSize)
		return p
	}
	for name, c := range map[string]struct {
		list []Piece
		ok   bool
	}{
		"all of a file":             {[]Piece{data(100, 1, 0)}, true},
		"the end of a file":         {[]Piece{data(1, 1, 99)}, true},
		"none":                      {nil, false},
		"beyond the file":           {[]Piece{data(101, 1, 0)}, false},
		"behind the file":           {[]Piece{data(1, 1, 100)}, false},
		"before the file":           {[]Piece{data(1, 1, -1)}, false},
		"overflow":                  {[]Piece{data(2, 1, 1<<63-1)}, false},
		"in an empty file":          {[]Piece{data(1, 0, 0)}, false},
		"in no file":                {[]Piece{data(1, 3, 0)}, false},
		"empty":                     {[]Piece{data(0, 1, 0)}, false},
		"longer than asked":         {[]Piece{data(1<<20+1, NoFile, 0)}, false},
		"a hole with a place":       {[]Piece{hole}, false},
		"with checksums":            {[]Piece{summed(1024, 2, 0, 512, 2)}, true},
		"ending within a block":     {[]Piece{summed(513, 2, 0, 512, 2)}, true},
		"blocks beyond the file":    {[]Piece{summed(1025, 2, 0, 1024, 2)}, false},
		"too few checksums":         {[]Piece{summed(1024, 2, 0, 512, 1)}, false},
		"too many checksums":        {[]Piece{summed(512, 2, 0, 512, 2)}, false},
		"no place, but checksums":   {[]Piece{summed(1024, NoFile, 0, 512, 2)}, false},
		"a hole with checksums":     {[]Piece{{Extent: disk.Extent{Length: 512, Kind: disk.ExtentHole}, File: 2, Block: 512, Sums: make([]byte, 4)}}, false},
		"blocks of no size":         {[]Piece{summed(1024, 2, 0, 0, 2)}, false},
		"blocks of negative size":   {[]Piece{summed(1024, 2, 0, -512, 2)}, false},
		"blocks of an odd size":     {[]Piece{summed(1024, 2, 0, 513, 2)}, false},
		"blocks that are too large": {[]Piece{summed(1024, 2, 0, 1<<40, 1)}, false},
		"of an unknown kind":        {[]Piece{{Extent: disk.Extent{Length: 1, Kind: 3}, File: NoFile}}, false},
	} {
		_, err := DecodePieces(AppendPieces(nil, c.list), testPieces, testFiles)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrBroken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestImpossibleContent: content is told of who has it, in whole, once, and if it was
// asked for.
func TestImpossibleContent(t *testing.T) {
	n := sampleInode()
	other := func(change func(*disk.Inode)) *disk.Inode {
		n := sampleInode()
		change(&n)
		return &n
	}
	ask, told := Describe{Contents: true, Inos: []uint64{12}}, []byte("four")
	for name, c := range map[string]struct {
		ask   Describe
		entry Entry
		ok    bool
	}{
		"all of a file":       {ask, Entry{Inode: &n, Content: told}, true},
		"not asked for":       {Describe{Inos: ask.Inos}, Entry{Inode: &n, Content: told}, false},
		"without an inode":    {ask, Entry{Content: told}, false},
		"of a directory":      {ask, Entry{Inode: other(func(n *disk.Inode) { n.Mode = disk.ModeDir }), Content: told}, false},
		"too little":          {ask, Entry{Inode: &n, Content: told[:3]}, false},
		"too much":            {ask, Entry{Inode: &n, Content: append(told, 0)}, false},
		"none":                {ask, Entry{Inode: other(func(n *disk.Inode) { n.Size = 0 }), Content: []byte{}}, false},
		"of a large file":     {ask, Entry{Inode: other(func(n *disk.Inode) { n.Size = MaxInlineContent + 1 }), Content: make([]byte, MaxInlineContent+1)}, false},
		"in two places":       {ask, Entry{Inode: &n, Content: told, Pieces: []Piece{{Extent: disk.Extent{Length: 4}, File: 1}}}, false},
		"as much as there is": {ask, Entry{Inode: other(func(n *disk.Inode) { n.Size = MaxInlineContent }), Content: make([]byte, MaxInlineContent)}, true},
	} {
		_, err := DecodeDescriptions(AppendDescription(nil, &c.entry), c.ask, testFiles)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrBroken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := DecodeDirPages(appendPages(samplePages()), ReadDir{Node: testReadDir.Node, Walk: WalkDisk}, testFiles)
	if !errors.Is(err, ErrBroken) {
		t.Errorf("in a directory, and not asked for: %v", err)
	}
}

func TestErrors(t *testing.T) {
	deep := error(disk.ErrLimit)
	for range 20 {
		deep = &disk.Error{Layer: "x", Structure: "y", Offset: -1, Err: deep}
	}
	for _, c := range []struct {
		name string
		err  error
		is   error
		text string // the whole text, or "" where it is cut
	}{
		{"sentinel", disk.ErrNotExist, disk.ErrNotExist, "does not exist"},
		{"disk error", &disk.Error{Layer: "ext4", Structure: "inode 12", Offset: 4096, Err: disk.ErrCorrupt, Detail: "bad", Hint: "fsck"},
			disk.ErrCorrupt, "ext4: inode 12 at offset 0x1000: damaged: bad (fsck)"},
		{"layers", &disk.Error{Layer: "ext4", Structure: "s", Offset: -1, Err: &disk.Error{Layer: "raw", Structure: "image", Offset: 1, Err: io.ErrUnexpectedEOF}},
			io.ErrUnexpectedEOF, "ext4: s: raw: image at offset 0x1: unexpected EOF"},
		{"other error", errors.New("input/output error"), nil, "input/output error"},
		{"wrapped", fmt.Errorf("read: %w", disk.ErrUnsupported), disk.ErrUnsupported, "read: not supported"},
		{"hostile text", &disk.Error{Layer: "ext4", Structure: "\x1b[2J\nforged", Offset: -1, Err: errors.New("\u202e")}, nil,
			`ext4: \u{1b}[2J\nforged: \u{202e}`},
		{"long", errors.New(strings.Repeat("ü", 1000)), nil, ""},
		{"deep", deep, disk.ErrLimit, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := AppendError(nil, c.err)
			if limit := (maxErrorDepth + 1) * 5 * (maxText + 8); len(b) > limit {
				t.Errorf("%d bytes", len(b))
			}
			got, err := DecodeError(b)
			if err != nil {
				t.Fatal(err)
			}
			if c.is != nil && !errors.Is(got, c.is) {
				t.Errorf("%v is not %v", got, c.is)
			}
			if c.text != "" && got.Error() != c.text {
				t.Errorf("got %q, want %q", got, c.text)
			}
			var before, after *disk.Error
			if errors.As(c.err, &before) != errors.As(got, &after) {
				t.Errorf("got %#v", got)
			}
		})
	}
}

func TestHeader(t *testing.T) {
	b := make([]byte, HeaderSize)
	PutHeader(b, Header{Length: 10, ID: 7, Code: 3})
	if h, err := ParseHeader(b, 10); err != nil || h != (Header{Length: 10, ID: 7, Code: 3}) {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := ParseHeader(b, 9); !errors.Is(err, ErrBroken) {
		t.Errorf("above the limit: %v", err)
	}
	for i := 9; i < HeaderSize; i++ {
		bad := bytes.Clone(b)
		bad[i] = 1
		if _, err := ParseHeader(bad, 10); !errors.Is(err, ErrBroken) {
			t.Errorf("byte %d is set: %v", i, err)
		}
	}
}

// Whatever a decoder of the worker accepts, it encodes to the same bytes.
func FuzzRequests(f *testing.F) {
	kinds := fuzzKinds(requests())
	for i, kind := range kinds {
		f.Add(uint8(i), requests()[kind].Append(nil))
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		name := kinds[int(kind)%len(kinds)]
		if got, err := reencode(name, b); err == nil && !bytes.Equal(got, b) {
			t.Errorf("%s: % x becomes % x", name, b, got)
		}
	})
}

// printed are the answers with texts that are made printable, which changes them: errors,
// and remarks of filesystems.
var printed = []string{"error", "guest", "info"}

// Whatever a decoder of the parent accepts, it encodes to the same bytes: what
// it returns is all that it was told, and was told in one way only. A text that is
// printable stays as it is.
func FuzzAnswers(f *testing.F) {
	kinds := fuzzKinds(answers())
	for i, kind := range kinds {
		f.Add(uint8(i), answers()[kind])
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		name := kinds[int(kind)%len(kinds)]
		got, err := reanswer(name, b)
		if err == nil && slices.Contains(printed, name) {
			b = got
			got, err = reanswer(name, b) // text that grew beyond the limit is refused
		}
		if err == nil && !bytes.Equal(got, b) {
			t.Errorf("%s: % x becomes % x", name, b, got)
		}
	})
}

// fuzzKinds returns the names of the messages, always in the same order.
func fuzzKinds[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
