package repository

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"math"
	"strconv"
	"time"
)

// plainNode returns the node that text is, but for its content, if it is as [appendNode]
// writes it, and reports whether it is. Nearly all are, and to read them is much of what
// the backup of an unchanged guest does. What is otherwise, or wrong, is for
// encoding/json. The node is not validated.
func plainNode(text []byte) (Node, bool) {
	r := plainReader{b: text}
	n := r.node()
	return n, !r.odd && len(r.b) == 0
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

// node reads a node.
func (r *plainReader) node() (n Node) {
	r.expect(`{"name":`)
	name, plain := r.string()
	if n.Name = name; !plain {
		var err error
		if n.Name, err = strconv.Unquote(`"` + name + `"`); err != nil {
			r.odd = true
		}
	}
	n.Type = r.kind(`,"type":"`)
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
	r.expect(`,"content":null`)
	if r.has(`,"subtree":"`) {
		n.Subtree = new(ID)
		r.odd = n.Subtree.UnmarshalText(r.until('"')) != nil || r.odd
	}
	n.Error = r.optionalString(`,"error":`)
	r.expect("}")
}

// kind reads a type of node, and does not keep its text.
func (r *plainReader) kind(key string) NodeType {
	r.expect(key)
	text := r.until('"')
	for _, t := range []NodeType{NodeFile, NodeDir, NodeSymlink, NodeDev, NodeCharDev, NodeFIFO, NodeSocket, NodeIrregular} {
		if string(t) == string(text) {
			return t
		}
	}
	r.odd = true
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

// value reads what is rare, as any JSON.
func (r *plainReader) value(v any) {
	dec := json.NewDecoder(bytes.NewReader(r.b))
	if dec.Decode(v) != nil {
		r.odd = true
		return
	}
	r.b = r.b[dec.InputOffset():]
}
