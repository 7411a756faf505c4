package repository

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Parts of a node that are lists, read so that what they become in memory is
// bounded by what they were as JSON. A blob of 512 MiB takes a few KiB to store,
// and what a server cannot forge, whoever else has the password can.

// maxXattrs is how many extended attributes a file has: Linux lists names in 64 KiB,
// and each takes two bytes or more.
const maxXattrs = 32 << 10

// contentJSON is the blobs of a file. [treeReader] reads them, and passes null on.
type contentJSON []ID

var errContent = errors.New("content is not an array of IDs of 64 hex digits")

// UnmarshalJSON reads null.
func (c *contentJSON) UnmarshalJSON(b []byte) error {
	if string(b) != "null" {
		return errContent
	}
	*c = nil
	return nil
}

// xattrsJSON is the extended attributes of a file.
type xattrsJSON []Xattr

// UnmarshalJSON reads null, or an array of no more than a file can have.
func (x *xattrsJSON) UnmarshalJSON(b []byte) error {
	*x = nil
	w := newJSONWalker(bytes.NewReader(b))
	return w.array(func() error {
		if len(*x) == maxXattrs {
			return fmt.Errorf("%w: more than %d extended attributes", ErrLimit, maxXattrs)
		}
		var one Xattr
		if err := w.value(&one); err != nil {
			return err
		}
		*x = append(*x, one)
		return nil
	})
}

// attributesJSON is what a node has that there is no field for: [maxMembers] at most.
type attributesJSON map[string]json.RawMessage

// UnmarshalJSON reads null, or an object of a few keys.
func (a *attributesJSON) UnmarshalJSON(b []byte) error {
	*a = nil
	if string(b) == "null" {
		return nil
	}
	w := newJSONWalker(bytes.NewReader(b))
	got := attributesJSON{}
	err := w.object(func(key string) error {
		var value json.RawMessage
		if err := w.value(&value); err != nil {
			return err
		}
		got[key] = value
		return nil
	})
	*a = got
	return err
}
