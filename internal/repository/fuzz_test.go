package repository

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/internal/repository/backend"
	"github.com/drydock-vm/drydock/internal/repository/backend/memory"
	"github.com/drydock-vm/drydock/internal/repository/crypto"
)

// The parsers of what a storage server, or somebody else with the password,
// could have written. None may panic, and what they accept must come out the
// same when it is encoded again.

// maxFuzzWork bounds what the parsers may make of an input, in entries a byte.
const maxFuzzWork = 1

func FuzzDecodeTree(f *testing.F) {
	tree, err := EncodeTree([]Node{fullNode(), {Name: "b", Type: NodeDir, Subtree: &someID}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tree.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		nodes, err := decodeTree(data)
		if err != nil {
			return
		}
		if len(nodes) > len(data)*maxFuzzWork {
			t.Errorf("%d bytes became %d nodes", len(data), len(nodes))
		}
		for i := range nodes {
			if parts := len(nodes[i].Content) + len(nodes[i].Xattrs) + len(nodes[i].Attributes); parts > len(data)/2 {
				t.Errorf("%d bytes became %d parts of a node", len(data), parts)
			}
		}
		again, err := EncodeTree(nodes)
		if err != nil {
			t.Fatalf("decoded and not encoded: %v", err)
		}
		nodes, err = again.Nodes()
		if err != nil {
			t.Fatalf("encoded and not decoded: %v\n%s", err, again.Bytes())
		}
		third, err := EncodeTree(nodes)
		if err != nil || !bytes.Equal(again.Bytes(), third.Bytes()) {
			t.Errorf("not stable: %v\n%s\n%s", err, again.Bytes(), third.Bytes())
		}
	})
}

// Holes that are accepted lie in the file, in order and apart, and are the same when
// they are encoded again.
func FuzzHoles(f *testing.F) {
	f.Add(string(EncodeHoles([]Hole{{5, 7}, {20, 1}})), uint64(21))
	f.Fuzz(func(t *testing.T, record string, size uint64) {
		n := Node{Name: "n", Size: size, Attributes: map[string]json.RawMessage{AttributeHoles: json.RawMessage(record)}}
		holes, known, err := n.Holes()
		if known == (err != nil) {
			t.Fatalf("known %v, %v", known, err)
		}
		end := int64(-1)
		for _, h := range holes {
			if h.Offset <= end || h.Length <= 0 || uint64(h.Offset+h.Length) > size {
				t.Fatalf("%v in %d bytes", holes, size)
			}
			end = h.Offset + h.Length
		}
		n.Attributes[AttributeHoles] = EncodeHoles(holes)
		if again, _, err := n.Holes(); known && (err != nil || !slices.Equal(again, holes)) {
			t.Errorf("%v became %v, %v", holes, again, err)
		}
	})
}

func FuzzDecodeIndex(f *testing.F) {
	data := encodeIndex([]finishedPack{{someID, testPack(f, 0, 3)}})
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var packs []finishedPack
		blobs := 0
		collect := func(id ID, entries []blobEntry) error {
			packs = append(packs, finishedPack{id, slices.Clone(entries)})
			blobs += len(entries)
			return nil
		}
		if decodeIndex(bytes.NewReader(data), collect) != nil {
			return
		}
		if blobs > len(data)*maxFuzzWork {
			t.Errorf("%d bytes became %d blobs", len(data), blobs)
		}
		x := newIndex()
		for _, p := range packs {
			if err := x.add(p.id, p.blobs); err != nil {
				t.Fatal(err)
			}
			for i := range p.blobs {
				if _, ok := x.size(p.blobs[i].blobType(), p.blobs[i].id); !ok {
					t.Errorf("blob %s is not found", p.blobs[i].id)
				}
			}
		}
		again := encodeIndex(packs)
		want := packs
		packs = nil
		if err := decodeIndex(bytes.NewReader(again), collect); err != nil || len(packs) != len(want) {
			t.Errorf("%d packs became %d, %v", len(want), len(packs), err)
		}
	})
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add(encodeHeader(testPack(f, 0, 3)), int64(300))
	f.Fuzz(func(t *testing.T, header []byte, size int64) {
		blobs, err := decodeHeader(header, size)
		if err != nil {
			return
		}
		if !bytes.Equal(encodeHeader(blobs), header) {
			t.Error("encodes to something else")
		}
		end := int64(0)
		for i := range blobs {
			if int64(blobs[i].offset) != end {
				t.Errorf("blob %d is at %d, and the one before ends at %d", i, blobs[i].offset, end)
			}
			end += int64(blobs[i].length)
		}
		if end != size {
			t.Errorf("the blobs end at %d of %d", end, size)
		}
	})
}

func FuzzDecodeSnapshot(f *testing.F) {
	f.Add([]byte(`{"time":"2020-01-02T03:04:05.678Z","tree":"` + someID.String() + `","paths":["/"],"tags":["a"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeSnapshot(data)
		if err == nil && (s.Tree.IsZero() || s.Time.IsZero()) {
			t.Errorf("accepted without a tree or a time: %+v", s)
		}
	})
}

func FuzzDecodeConfig(f *testing.F) {
	cfg, err := newConfig()
	if err != nil {
		f.Fatal(err)
	}
	plain, err := json.Marshal(cfg)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := decodeConfig(data)
		if err != nil {
			return
		}
		r, err := newRepository(&memory.Backend{}, new(crypto.Key), cfg, Options{Compression: CompressionFastest})
		if err != nil {
			t.Fatal(err)
		}
		// What is accepted cuts: restic's chunker panics on other polynomials.
		c := r.NewCutter()
		c.Reset(bytes.NewReader(data))
		if chunk, err := c.Next(nil); err == nil && !bytes.Equal(chunk, data) {
			t.Errorf("%d bytes were cut to %d", len(data), len(chunk))
		}
	})
}

// maxFuzzKDF bounds N·r·p of the key files that are tried, so that each takes a few
// milliseconds.
const maxFuzzKDF = 1 << 14

// A key file is the one thing that a server can make up.
func FuzzOpenKey(f *testing.F) {
	key, err := crypto.NewKey()
	if err != nil {
		f.Fatal(err)
	}
	be := &memory.Backend{}
	password := []byte("password")
	if err := saveKey(f.Context(), be, key, password, crypto.Params{N: 1 << 10, R: 8, P: 1}, time.Unix(0, 0)); err != nil {
		f.Fatal(err)
	}
	err = be.List(f.Context(), backend.KeyFile, func(info backend.FileInfo) error {
		data, err := readSized(f.Context(), be, "", backend.Handle{Type: backend.KeyFile, Name: info.Name}, info.Size, maxKeyFileSize)
		f.Add(data)
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var kf keyFile
		if json.Unmarshal(data, &kf) == nil && float64(kf.N)*float64(kf.R)*float64(kf.P) > maxFuzzKDF {
			return
		}
		be := &memory.Backend{}
		h := backend.Handle{Type: backend.KeyFile, Name: Hash(data).String()}
		if err := be.Save(t.Context(), h, data); err != nil {
			t.Fatal(err)
		}
		key, err := openKey(t.Context(), be, backend.FileInfo{Name: h.Name, Size: int64(len(data))}, password)
		if err != nil {
			return
		}
		if plain, err := key.Open(key.Seal(nil, data)); err != nil || !bytes.Equal(plain, data) {
			t.Errorf("what was opened is no key: %v", err)
		}
	})
}

func FuzzLock(f *testing.F) {
	f.Add([]byte(`{"time":"2020-01-02T03:04:05Z","exclusive":true,"hostname":"h","username":"root","pid":1}`), "h")
	f.Fuzz(func(t *testing.T, data []byte, hostname string) {
		var info LockInfo
		if json.Unmarshal(data, &info) != nil {
			return
		}
		isStale(info, hostname, false, time.Now())
		if text := (&LockedError{Holder: info, Now: time.Now()}).Error(); strings.ContainsAny(text, "\n\x1b") {
			t.Errorf("unsafe text %q", text)
		}
	})
}

// FuzzDecodeFile is the outermost layer of what format 2 encrypts.
func FuzzDecodeFile(f *testing.F) {
	dec, err := newDecoder()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		out, err := decodeFile(dec, data)
		if err == nil && len(out) > maxUnpackedSize {
			t.Errorf("%d bytes", len(out))
		}
	})
}

// Each fuzz target has seeds that are checked in, among them what is valid.
func TestSeeds(t *testing.T) {
	for _, target := range []string{"FuzzDecodeTree", "FuzzTreeReader", "FuzzDecodeIndex", "FuzzDecodeHeader", "FuzzDecodeSnapshot", "FuzzDecodeFile", "FuzzDecodeConfig", "FuzzOpenKey", "FuzzLock", "FuzzHoles"} {
		seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", target, "*"))
		if err != nil || len(seeds) == 0 {
			t.Errorf("%s has no seeds: %v", target, err)
		}
		for _, seed := range seeds {
			if data, err := os.ReadFile(seed); err != nil || !bytes.HasPrefix(data, []byte("go test fuzz v1\n")) {
				t.Errorf("%s is no seed: %v", seed, err)
			}
		}
	}
}
