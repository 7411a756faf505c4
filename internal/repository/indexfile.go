package repository

import (
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
)

// indexBlob is one blob in an index file.
type indexBlob struct {
	ID           ID     `json:"id"`
	Type         string `json:"type"`
	Offset       uint64 `json:"offset"`
	Length       uint64 `json:"length"`
	Uncompressed uint64 `json:"uncompressed_length,omitempty"`
}

// finishedPack is a pack that is stored, and what is in it.
type finishedPack struct {
	id    ID
	blobs []blobEntry
}

// blobText is how long the text of a blob in an index file can be, in bytes: the hex
// digits of its ID, 62 of punctuation and keys, its type and three numbers of 10 digits.
const blobText = 64 + 62 + 4 + 30

// encodeIndex returns the index file of packs. It does so without encoding/json, which
// would take several times the memory: a pack has room for 100,000 blobs.
func encodeIndex(packs []finishedPack) []byte {
	size := 0
	for _, p := range packs {
		size += 128 + len(p.blobs)*blobText
	}
	out := append(make([]byte, 0, size), `{"packs":[`...)
	for n, p := range packs {
		if n > 0 {
			out = append(out, ',')
		}
		out = append(hex.AppendEncode(append(out, `{"id":"`...), p.id[:]), `","blobs":[`...)
		for i := range p.blobs {
			if i > 0 {
				out = append(out, ',')
			}
			out = p.blobs[i].appendJSON(out)
		}
		out = append(out, "]}"...)
	}
	return append(out, "]}"...)
}

// appendJSON appends an [indexBlob].
func (e *blobEntry) appendJSON(out []byte) []byte {
	number := func(key string, n uint32) {
		out = strconv.AppendUint(append(out, key...), uint64(n), 10)
	}
	out = hex.AppendEncode(append(out, `{"id":"`...), e.id[:])
	out = append(append(out, `","type":"`...), e.blobType().String()...)
	number(`","offset":`, e.offset)
	number(`,"length":`, e.length)
	if e.compressed() && e.size > 0 {
		number(`,"uncompressed_length":`, e.size)
	}
	return append(out, '}')
}

// decodeIndex calls add for each pack of an index file. The blobs are add's only
// until it returns.
//
// The index files that "supersedes" names are read like all others: they go away
// before what they describe does, so what they say is true as long as they are
// there. Restic does the same.
func decodeIndex(rd io.Reader, add func(pack ID, blobs []blobEntry) error) error {
	w := newJSONWalker(rd)
	err := w.object(func(key string) error {
		switch key {
		case "packs":
			var blobs []blobEntry
			return w.array(func() error {
				id, more, err := decodeIndexPack(w, blobs[:0])
				if err != nil {
					return err
				}
				blobs = more
				return add(id, blobs)
			})
		case "supersedes":
			return w.array(func() error {
				var id ID
				return w.value(&id)
			})
		}
		return w.skip()
	})
	if err != nil {
		return err
	}
	return w.end()
}

// decodeIndexPack reads one pack, and appends its blobs to blobs.
func decodeIndexPack(w jsonWalker, blobs []blobEntry) (id ID, _ []blobEntry, err error) {
	err = w.object(func(key string) error {
		switch key {
		case "id":
			return w.value(&id)
		case "blobs":
			return w.array(func() error {
				var b indexBlob
				if err := w.value(&b); err != nil {
					return err
				}
				t, err := parseBlobType(b.Type)
				if err != nil {
					return err
				}
				e, err := newBlobEntry(t, b.ID, b.Offset, b.Length, b.Uncompressed)
				if err != nil {
					return err
				}
				blobs = append(blobs, e)
				return nil
			})
		}
		return w.skip()
	})
	if err == nil && id.IsZero() {
		err = fmt.Errorf("a pack of %d blobs has no ID", len(blobs))
	}
	return id, blobs, err
}
