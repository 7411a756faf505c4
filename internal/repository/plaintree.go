package repository

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"math"
	"strconv"
	"time"
)

// Trees are nearly always as restic and [TreeEncoder] write them, to the byte, and to
// read them is most of what the backup of an unchanged guest does. So they are read as
// such, and from the first node on that is otherwise, or wrong, as any JSON, which also
// says what is wrong.

// walkPlain calls yield for the nodes of a tree as far as it is plain. It returns how
// many these were, and whether that is all of the tree.
func walkPlain(data []byte, yield func(*Node) error) (count int, whole bool, err error) {
	r := plainReader{b: data}
	r.expect(treeStart)
	for last := ""; ; count++ {
		if r.has(treeEnd) {
			return count, len(r.b) == 0 && !r.odd, nil
		}
		if count > 0 {
			r.expect(",")
		}
		n := r.node()
		if r.odd || n.validate() != nil || n.Name <= last || count == maxTreeNodes {
			return count, false, nil
		}
		last = n.Name
		if err := yield(&n); err != nil {
			return count, false, err
		}
	}
}

// plainReader reads text that is as [appendNode] writes it. What it returns once
// something was odd has no meaning.
type plainReader struct {
	b   []byte
	odd bool // something was not as expected
}

// has passes over text, if it is next.
func (r *plainReader) has(text string) bool {
	if len(r.b) < len(text) || string(r.b[:len(text)]) != text {
		return false
	}
	r.b = r.b[len(text):]
	return true
}

// expect passes over text, which must be next.
func (r *plainReader) expect(text string) {
	if !r.has(text) {
		r.odd = true
	}
}

// until returns what comes before an end, and passes over both.
func (r *plainReader) until(end byte) []byte {
	i := bytes.IndexByte(r.b, end)
	if i < 0 {
		r.odd = true
		return nil
	}
	text := r.b[:i]
	r.b = r.b[i+1:]
	return text
}

// node reads a node, which is not validated.
func (r *plainReader) node() (n Node) {
	r.expect(`{"name":`)
	name, plain := r.string()
	if n.Name = name; !plain {
		var err error
		if n.Name, err = strconv.Unquote(`"` + name + `"`); err != nil {
			r.odd = true
		}
	}
	r.expect(`,"type":"`)
	n.Type = plainType(r.until('"'))
	n.Mode = fs.FileMode(r.optional(`,"mode":`, math.MaxUint32))
	n.ModTime = r.time(`,"mtime":"`)
	n.AccessTime = r.time(`,"atime":"`)
	n.ChangeTime = r.time(`,"ctime":"`)
	r.expect(`,"uid":`)
	n.UID = uint32(r.uint(math.MaxUint32))
	r.expect(`,"gid":`)
	n.GID = uint32(r.uint(math.MaxUint32))
	r.rest(&n)
	return n
}

// rest reads the fields of a node that it need not have.
func (r *plainReader) rest(n *Node) {
	n.User = r.optionalString(`,"user":`)
	n.Group = r.optionalString(`,"group":`)
	n.Inode = r.optional(`,"inode":`, math.MaxUint64)
	n.DeviceID = r.optional(`,"device_id":`, math.MaxUint64)
	n.Size = r.optional(`,"size":`, math.MaxUint64)
	n.Links = r.optional(`,"links":`, math.MaxUint64)
	n.LinkTarget = r.optionalString(`,"linktarget":`)
	if r.has(`,"linktarget_raw":`) {
		var raw []byte
		if r.value(&raw); raw != nil {
			n.LinkTarget = string(raw)
		}
	}
	if r.has(`,"extended_attributes":`) {
		r.value((*xattrsJSON)(&n.Xattrs))
	}
	if r.has(`,"generic_attributes":`) {
		r.value((*attributesJSON)(&n.Attributes))
	}
	n.Device = r.optional(`,"device":`, math.MaxUint64)
	r.expect(`,"content":`)
	n.Content = r.content()
	if r.has(`,"subtree":"`) {
		n.Subtree = new(ID)
		r.odd = n.Subtree.UnmarshalText(r.until('"')) != nil || r.odd
	}
	n.Error = r.optionalString(`,"error":`)
	r.expect("}")
}

// plainType returns a type of node without keeping its text; "" if it is none.
func plainType(text []byte) NodeType {
	for _, t := range []NodeType{NodeFile, NodeDir, NodeSymlink, NodeDev, NodeCharDev, NodeFIFO, NodeSocket, NodeIrregular} {
		if string(t) == string(text) {
			return t
		}
	}
	return ""
}

// string reads a string, and reports whether it is the same in all notations.
func (r *plainReader) string() (s string, plain bool) {
	if len(r.b) == 0 || r.b[0] != '"' {
		r.odd = true
		return "", false
	}
	plain = true
	for i := 1; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case c == '"' && plain:
			s, r.b = string(r.b[1:i]), r.b[i+1:]
			return s, true
		case c == '"':
			r.odd = json.Unmarshal(r.b[:i+1], &s) != nil || r.odd
			r.b = r.b[i+1:]
			return s, false
		case c == '\\':
			plain = false
			i++
		case c < ' ' || c > '~':
			plain = false
		}
	}
	r.odd = true
	return "", false
}

func (r *plainReader) optionalString(key string) string {
	if !r.has(key) {
		return ""
	}
	s, _ := r.string()
	return s
}

// uint reads a number of at most that size.
func (r *plainReader) uint(most uint64) (v uint64) {
	n := 0
	for ; n < len(r.b) && r.b[n] >= '0' && r.b[n] <= '9'; n++ {
		digit := uint64(r.b[n] - '0')
		if v > (most-digit)/10 {
			r.odd = true
		}
		v = 10*v + digit
	}
	if n == 0 || n > 1 && r.b[0] == '0' {
		r.odd = true
	}
	r.b = r.b[n:]
	return v
}

func (r *plainReader) optional(key string, most uint64) uint64 {
	if !r.has(key) {
		return 0
	}
	return r.uint(most)
}

func (r *plainReader) time(key string) (t time.Time) {
	r.expect(key)
	r.odd = t.UnmarshalText(r.until('"')) != nil || r.odd
	return t
}

func (r *plainReader) content() []ID {
	if r.has("null") {
		return nil
	}
	var ids contentJSON
	text := r.b
	n := len(r.until(']'))
	if r.odd || ids.UnmarshalJSON(text[:n+1]) != nil {
		r.odd = true
	}
	return ids
}

// value reads what is rare, as any JSON.
func (r *plainReader) value(v any) {
	dec := json.NewDecoder(bytes.NewReader(r.b))
	if dec.Decode(v) != nil {
		r.odd = true
		return
	}
	r.b = r.b[dec.InputOffset():]
}
