package repository

import (
	"encoding/json"
	"fmt"
	"io"
)

// indexFile is the content of an index file.
type indexFile struct {
	Packs []indexPack `json:"packs"`
}

type indexPack struct {
	ID    ID          `json:"id"`
	Blobs []indexBlob `json:"blobs"`
}

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

// encodeIndex returns the index file of packs.
func encodeIndex(packs []finishedPack) ([]byte, error) {
	var f indexFile
	for _, p := range packs {
		ip := indexPack{ID: p.id, Blobs: make([]indexBlob, 0, len(p.blobs))}
		for i := range p.blobs {
			e := &p.blobs[i]
			b := indexBlob{ID: e.id, Type: e.blobType().String(), Offset: uint64(e.offset), Length: uint64(e.length)}
			if e.compressed() {
				b.Uncompressed = uint64(e.size)
			}
			ip.Blobs = append(ip.Blobs, b)
		}
		f.Packs = append(f.Packs, ip)
	}
	return json.Marshal(f)
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
