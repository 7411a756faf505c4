package repository

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What drydock keeps of a file beyond restic's fields lies in the node's generic
// attributes. docs/format/attributes.md is the specification.
const (
	// AttributeHoles is where a file's holes are.
	AttributeHoles = "drydock.holes"
	// AttributeFlags is chattr(1)'s flags, by name.
	AttributeFlags = "drydock.flags"
	// AttributeXattrs is the extended attributes that restic would restore wrongly:
	// those of symlinks, which restic 0.14 gives to what the symlink leads to, be it
	// outside of the target, and those with names that are not UTF-8.
	AttributeXattrs = "drydock.xattrs"
)

const (
	holesVersion = 1
	// MaxHoles bounds the record of a file's holes, at some 16 bytes each. What
	// has more has no record.
	MaxHoles = 1 << 18
	// maxRecord bounds a record, in bytes: MaxHoles take 10 MiB at most. What it is
	// decoded to can take 16 times as much.
	maxRecord = 16 << 20
	// maxFlags bounds the record of flags, in bytes: FS_IOC_GETFLAGS has 32 bits.
	maxFlags = 1 << 10
)

// ErrUnknownVersion is of a record that a newer drydock wrote.
var ErrUnknownVersion = errors.New("a newer drydock wrote it")

// Hole is a range of a file that has no blocks, in bytes.
type Hole struct{ Offset, Length int64 }

// holesJSON is the record: how much data comes before the first hole, how long
// that is, how much data comes behind it, and so on.
type holesJSON struct {
	Version int     `json:"version"`
	Runs    []int64 `json:"runs"`
}

// EncodeHoles returns the record of a file's holes, which are in order and do not
// touch. No holes is a record too: all of the file, zeros included, is data.
func EncodeHoles(holes []Hole) json.RawMessage {
	b := fmt.Appendf(nil, `{"version":%d,"runs":[`, holesVersion)
	var end int64
	for i, h := range holes {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, h.Offset-end, 10)
		b = strconv.AppendInt(append(b, ','), h.Length, 10)
		end = h.Offset + h.Length
	}
	return append(b, "]}"...)
}

// Holes returns a file's holes, in order. It reports false where the node has no
// record of them, and long runs of zeros may have been holes. An error is
// [ErrDamaged] or [ErrUnknownVersion], and the file is to be treated as one without
// a record.
func (n *Node) Holes() (holes []Hole, known bool, err error) {
	raw, known := n.Attributes[AttributeHoles]
	if !known {
		return nil, false, nil
	}
	var j holesJSON
	fail := func(err error) ([]Hole, bool, error) {
		return nil, false, fmt.Errorf("%s of %.300q: %w", AttributeHoles, n.Name, err)
	}
	if err := decodeRecord(raw, &j); err != nil {
		return fail(err)
	}
	switch {
	case j.Version > holesVersion:
		return fail(fmt.Errorf("%w: version %d", ErrUnknownVersion, j.Version))
	case j.Version != holesVersion || len(j.Runs)%2 != 0 || len(j.Runs) > 2*MaxHoles || n.Size > math.MaxInt64:
		return fail(fmt.Errorf("%w: version %d, %d runs", ErrDamaged, j.Version, len(j.Runs)))
	}
	var end int64
	for run := range slices.Chunk(j.Runs, 2) {
		left := int64(n.Size) - end
		data, hole := run[0], run[1]
		if data < 0 || data > left || hole <= 0 || hole > left-data || data == 0 && end > 0 {
			return fail(fmt.Errorf("%w: a hole of %d bytes, %d behind %d, in %d bytes", ErrDamaged, hole, data, end, n.Size))
		}
		holes = append(holes, Hole{end + data, hole})
		end += data + hole
	}
	return holes, true, nil
}

// xattrJSON is one extended attribute, both in base64.
type xattrJSON struct {
	Name  []byte `json:"name"`
	Value []byte `json:"value"`
}

// SetXattrs gives the node extended attributes, each in the place where it harms no
// restic client.
func (n *Node) SetXattrs(list []Xattr) {
	var odd []xattrJSON
	n.Xattrs = nil
	for _, x := range list {
		if x.Value == nil {
			x.Value = []byte{} // nil is null in JSON
		}
		if n.Type == NodeSymlink || !utf8.ValidString(x.Name) {
			odd = append(odd, xattrJSON{[]byte(x.Name), x.Value})
		} else {
			n.Xattrs = append(n.Xattrs, x)
		}
	}
	if odd != nil {
		raw, _ := json.Marshal(odd) // bytes have no error
		n.SetAttribute(AttributeXattrs, raw)
	}
}

// AllXattrs returns the extended attributes from both places, sorted by name. An
// error is [ErrDamaged], and comes with those that can be read.
func (n *Node) AllXattrs() ([]Xattr, error) {
	list := slices.Clone(n.Xattrs)
	var err error
	if raw, ok := n.Attributes[AttributeXattrs]; ok {
		var odd []xattrJSON
		if err = decodeRecord(raw, &odd); err != nil {
			err = fmt.Errorf("%s of %.300q: %w", AttributeXattrs, n.Name, err)
		}
		for _, x := range odd {
			list = append(list, Xattr{string(x.Name), x.Value})
		}
	}
	slices.SortFunc(list, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return list, err
}

// SetAttribute sets one of the attributes above. A nil value is none.
func (n *Node) SetAttribute(name string, value json.RawMessage) {
	if value == nil {
		return
	}
	if n.Attributes == nil {
		n.Attributes = make(map[string]json.RawMessage)
	}
	n.Attributes[name] = value
}

// FlagMadeUp is beside chattr(1)'s flags: no disk has a folder here. Another disk is
// mounted at it, or in it.
const FlagMadeUp = "made-up"

// AddFlag adds a flag to the record.
func (n *Node) AddFlag(name string) {
	names := append(n.Flags(), name)
	slices.Sort(names)
	n.SetAttribute(AttributeFlags, EncodeFlags(names))
}

// EncodeFlags returns the record of chattr(1)'s flags.
func EncodeFlags(names []string) json.RawMessage {
	b, _ := json.Marshal(names) // strings have no error
	return b
}

// Flags returns the names of chattr(1)'s flags that a file had. A record that
// cannot be read is none.
func (n *Node) Flags() []string {
	var names []string
	if raw := n.Attributes[AttributeFlags]; len(raw) > maxFlags || json.Unmarshal(raw, &names) != nil {
		return nil
	}
	return names
}

func decodeRecord(raw json.RawMessage, v any) error {
	if len(raw) > maxRecord {
		return fmt.Errorf("%w: a record of %d bytes", ErrDamaged, len(raw))
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}
