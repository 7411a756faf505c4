package repository

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// testID returns an ID that is as good as a hash.
func testID(n int) ID { return Hash(binary.LittleEndian.AppendUint64(nil, uint64(n))) }

// testPack returns the blobs of a pack: n data blobs, numbered from first.
func testPack(t testing.TB, first, n int) []blobEntry {
	t.Helper()
	blobs := make([]blobEntry, 0, n)
	for i := range n {
		e, err := newBlobEntry(DataBlob, testID(first+i), uint64(i)*100, 100, uint64(first+i)%200)
		if err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, e)
	}
	return blobs
}

// filledIndex makes an index of packs with as many blobs each, and says what it takes.
func filledIndex(t *testing.T, packs, each int) (x *index, used uint64) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	x = newIndex()
	for p := range packs {
		if err := x.add(testID(-1-p), testPack(t, p*each, each)); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	return x, after.HeapAlloc - before.HeapAlloc
}

// A million blobs take less than 80 MB, and are found.
func TestIndexMillion(t *testing.T) {
	const packs, each = 2000, 500
	x, used := filledIndex(t, packs, each)
	t.Logf("%d blobs take %d bytes", packs*each, used)
	if used > 80<<20 {
		t.Errorf("%d bytes are too many", used)
	}
	for n := 0; n < packs*each; n += 7 {
		places := x.lookup(DataBlob, testID(n))
		if len(places) != 1 || places[0].pack != testID(-1-n/each) || int(places[0].offset) != n%each*100 {
			t.Fatalf("blob %d is at %+v", n, places)
		}
	}
	if _, ok := x.size(TreeBlob, testID(0)); ok {
		t.Error("a data blob was found as a tree")
	}
	if _, ok := x.size(DataBlob, testID(packs*each)); ok {
		t.Error("a blob was found that is not there")
	}
}

// A pack comes again, from another index file, with more or other blobs.
func TestIndexSamePack(t *testing.T) {
	x := newIndex()
	pack := testID(-1)
	all := testPack(t, 0, 10)
	for _, blobs := range [][]blobEntry{all[:5], all, all[3:], all} {
		if err := x.add(pack, blobs); err != nil {
			t.Fatal(err)
		}
	}
	if x.entries.count != 10 {
		t.Errorf("%d entries, want 10", x.entries.count)
	}
	got := x.packBlobs(pack)
	if len(got) != 10 {
		t.Errorf("the pack has %d blobs, want 10", len(got))
	}
	for i := range all {
		if !slices.ContainsFunc(got, func(e blobEntry) bool { return e.sameBlob(&all[i]) }) {
			t.Errorf("blob %d is missing", i)
		}
	}
}

// However often one blob was stored, a lookup stays short.
func TestIndexCopies(t *testing.T) {
	x := newIndex()
	blob := testPack(t, 0, 1)
	for p := range 1000 {
		if err := x.add(testID(-1-p), blob); err != nil {
			t.Fatal(err)
		}
	}
	if places := x.lookup(DataBlob, blob[0].id); len(places) != maxCopies {
		t.Errorf("%d places, want %d", len(places), maxCopies)
	}
}

func TestNewBlobEntry(t *testing.T) {
	for _, bad := range [][3]uint64{
		{0, crypto.Overhead - 1, 0}, {0, 0, 0}, {0, math.MaxUint32 + 1, 0}, {math.MaxUint32, 100, 0},
		{math.MaxUint64, 100, 0}, {0, 100, math.MaxUint32 + 1}, {0, math.MaxUint64, 0},
	} {
		if e, err := newBlobEntry(DataBlob, someID, bad[0], bad[1], bad[2]); err == nil {
			t.Errorf("%v: accepted as %+v", bad, e)
		}
	}
	e, err := newBlobEntry(TreeBlob, someID, math.MaxUint32-100, 100, 0)
	if err != nil || e.blobType() != TreeBlob || e.compressed() || e.size != 100-crypto.Overhead {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestIndexFile(t *testing.T) {
	blobs := testPack(t, 1, 3)
	tree, err := newBlobEntry(TreeBlob, someID, 300, 77, 1000)
	if err != nil {
		t.Fatal(err)
	}
	want := []finishedPack{{testID(-1), blobs}, {testID(-2), []blobEntry{tree}}}
	data := encodeIndex(want)
	if text := marshalIndex(t, want); !bytes.Equal(data, text) {
		t.Errorf("%s, and encoding/json writes %s", data, text)
	}
	var got []finishedPack
	err = decodeIndex(bytes.NewReader(data), func(pack ID, blobs []blobEntry) error {
		got = append(got, finishedPack{pack, slices.Clone(blobs)})
		return nil
	})
	if err != nil || len(got) != 2 || got[0].id != want[0].id || !slices.Equal(got[0].blobs, blobs) || !slices.Equal(got[1].blobs, want[1].blobs) {
		t.Errorf("%s\ncame back as %+v, %v", data, got, err)
	}
}

// marshalIndex is an index file as encoding/json writes it.
func marshalIndex(t *testing.T, packs []finishedPack) []byte {
	t.Helper()
	type pack struct {
		ID    ID          `json:"id"`
		Blobs []indexBlob `json:"blobs"`
	}
	var file struct {
		Packs []pack `json:"packs"`
	}
	for _, p := range packs {
		out := pack{ID: p.id}
		for _, e := range p.blobs {
			b := indexBlob{ID: e.id, Type: e.blobType().String(), Offset: uint64(e.offset), Length: uint64(e.length)}
			if e.compressed() {
				b.Uncompressed = uint64(e.size)
			}
			out.Blobs = append(out.Blobs, b)
		}
		file.Packs = append(file.Packs, out)
	}
	text, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestDecodeIndex(t *testing.T) {
	id := someID.String()
	blob := `{"id":"` + id + `","type":"data","offset":0,"length":100}`
	for name, test := range map[string]struct {
		json string
		ok   bool
	}{
		"empty":              {`{}`, true},
		"no packs":           {`{"packs":[]}`, true},
		"null":               {`{"packs":null}`, true},
		"supersedes":         {`{"supersedes":["` + id + `"],"packs":[{"id":"` + id + `","blobs":[` + blob + `]}]}`, true},
		"future":             {`{"future":{"a":1},"packs":[{"id":"` + id + `","new":2,"blobs":[]}]}`, true},
		"blobs before ID":    {`{"packs":[{"blobs":[` + blob + `],"id":"` + id + `"}]}`, true},
		"bad supersedes":     {`{"supersedes":["x"]}`, false},
		"pack without ID":    {`{"packs":[{"blobs":[` + blob + `]}]}`, false},
		"pack without parts": {`{"packs":[{}]}`, false},
		"blob without parts": {`{"packs":[{"id":"` + id + `","blobs":[{}]}]}`, false},
		"bad type":           {`{"packs":[{"id":"` + id + `","blobs":[{"id":"` + id + `","type":"door","offset":0,"length":100}]}]}`, false},
		"short":              {`{"packs":[{"id":"` + id + `","blobs":[{"id":"` + id + `","type":"data","offset":0,"length":1}]}]}`, false},
		"negative":           {`{"packs":[{"id":"` + id + `","blobs":[{"id":"` + id + `","type":"data","offset":-1,"length":100}]}]}`, false},
		"huge":               {`{"packs":[{"id":"` + id + `","blobs":[{"id":"` + id + `","type":"data","offset":4294967295,"length":100}]}]}`, false},
		"twice":              {`{"packs":[],"packs":[]}`, false},
		"more":               {`{"packs":[]}[]`, false},
		"array":              {`[]`, false},
		"cut off":            {`{"packs":[{"id":"` + id, false},
		"nothing":            {``, false},
	} {
		err := decodeIndex(strings.NewReader(test.json), newIndex().add)
		if (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	stop := errors.New("stop")
	err := decodeIndex(strings.NewReader(`{"packs":[{"id":"`+id+`"}]}`), func(ID, []blobEntry) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("add failed, and decodeIndex says %v", err)
	}
}

func TestHeader(t *testing.T) {
	blobs := testPack(t, 0, 300)
	header := encodeHeader(blobs)
	got, err := decodeHeader(header, 300*100)
	if err != nil || !slices.Equal(got, blobs) {
		t.Errorf("came back as %d blobs, %v", len(got), err)
	}
	if _, err := decodeHeader(header, 300*100+1); err == nil {
		t.Error("a byte that is no blob's was accepted")
	}
	// Cut anywhere, the blobs do not fill the pack.
	for i := range header {
		if _, err := decodeHeader(header[:i], int64(len(blobs)*100)); err == nil {
			t.Fatalf("cut to %d bytes: accepted", i)
		}
	}
	header[0] = 4
	if _, err := decodeHeader(header, 300*100); err == nil {
		t.Error("an unknown type was accepted")
	}
	if _, err := decodeHeader(encodeHeader([]blobEntry{{id: someID, length: 100, meta: metaCompressed}}), 100); err == nil {
		t.Error("a compressed blob of no size was accepted")
	}
}

// A million packs with two blobs each, as a disk of 16 TiB that is full has them, take less
// than 170 MB.
func TestIndexMillionPacks(t *testing.T) {
	const packs, each = 1_000_000, 2
	x, used := filledIndex(t, packs, each)
	t.Logf("%d packs take %d bytes", packs, used)
	if used > 170e6 {
		t.Errorf("%d bytes are too many", used)
	}
	if n := len(x.packIDs()); n != packs {
		t.Errorf("%d packs, want %d", n, packs)
	}
	for p := 0; p < packs; p += 999 {
		blobs := x.packBlobs(testID(-1 - p))
		if len(blobs) != each || blobs[0].id != testID(p*each) || blobs[1].id != testID(p*each+1) {
			t.Fatalf("pack %d has %+v", p, blobs)
		}
	}
}

// The first place of a blob stays the first, however large the table has become: sets of
// blobs go by it.
func TestIndexOrder(t *testing.T) {
	x := newIndex()
	const blobs = 5000
	for p := range 3 {
		if err := x.add(testID(-1-p), testPack(t, 0, blobs)); err != nil {
			t.Fatal(err)
		}
	}
	for p := range 10 {
		for n := range blobs {
			if first, _, ok := x.number(DataBlob, testID(n)); !ok || first != uint32(n) {
				t.Fatalf("after %d packs, blob %d is first number %d, %t", 3+p, n, first, ok)
			}
		}
		if err := x.add(testID(-100-p), testPack(t, (1+p)*blobs, blobs)); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkIndex(b *testing.B) {
	const packs, each = 2000, 500
	var all [][]blobEntry
	var ids []ID
	for p := range packs {
		all, ids = append(all, testPack(b, p*each, each)), append(ids, testID(-1-p))
	}
	var x *index
	b.Run("add a million", func(b *testing.B) {
		for b.Loop() {
			x = newIndex()
			for p := range packs {
				if err := x.add(ids[p], all[p]); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("look up", func(b *testing.B) {
		n := 0
		for b.Loop() {
			if _, ok := x.size(DataBlob, all[n%packs][n%each].id); !ok {
				b.Fatal("not found")
			}
			n += 7919
		}
	})
}
