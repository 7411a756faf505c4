package repository

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// ID is the SHA-256 sum of a blob's content, or of a file's content as it is
// stored. Its text is 64 lower-case hex digits.
type ID [sha256.Size]byte

// Hash returns the ID of data.
func Hash(data []byte) ID { return sha256.Sum256(data) }

// ParseID reads 64 hex digits.
func ParseID(s string) (ID, error) {
	var id ID
	if err := id.UnmarshalText([]byte(s)); err != nil {
		return ID{}, err
	}
	return id, nil
}

// String is the 64 hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short is the first 8 hex digits, as restic shows IDs to people.
func (id ID) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero reports whether id was never set.
func (id ID) IsZero() bool { return id == ID{} }

// AppendText appends the 64 hex digits to b.
func (id ID) AppendText(b []byte) ([]byte, error) { return hex.AppendEncode(b, id[:]), nil }

// MarshalText returns the 64 hex digits.
func (id ID) MarshalText() ([]byte, error) { return id.AppendText(nil) }

// UnmarshalText reads 64 hex digits.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(id)) {
		return fmt.Errorf("%.80q is not an ID of 64 hex digits", text)
	}
	if _, err := hex.Decode(id[:], text); err != nil {
		return fmt.Errorf("%q is not an ID of 64 hex digits: %w", text, err)
	}
	return nil
}

// BlobType is what a blob holds.
type BlobType uint8

// The types of blob.
const (
	// DataBlob is a piece of a file's content.
	DataBlob BlobType = iota
	// TreeBlob is a folder: the output of a [TreeEncoder].
	TreeBlob
)

// String is the type as an index spells it.
func (t BlobType) String() string {
	switch t {
	case DataBlob:
		return "data"
	case TreeBlob:
		return "tree"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// parseBlobType reads what String wrote.
func parseBlobType(s string) (BlobType, error) {
	switch s {
	case "data":
		return DataBlob, nil
	case "tree":
		return TreeBlob, nil
	}
	return 0, fmt.Errorf("unknown blob type %.20q", s)
}
