package repository

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// TreeEncoder turns the nodes of a folder into the bytes of a tree blob: the same
// bytes that restic writes for them, so that both deduplicate against each other.
// The zero value is not ready: use [NewTreeEncoder].
type TreeEncoder struct {
	buf   []byte
	lists []contentList
	last  string
}

const (
	treeStart = `{"nodes":[`
	treeEnd   = "]}\n"
)

// NewTreeEncoder returns an encoder of an empty folder.
func NewTreeEncoder() *TreeEncoder { return &TreeEncoder{buf: []byte(treeStart)} }

// Size is the bytes that were encoded so far. [Repository.SaveTree] refuses more than
// 512 MiB.
func (e *TreeEncoder) Size() int { return len(e.buf) + listsSize(e.lists) }

// Add adds a node. Nodes come in ascending byte order of their names. Of the node, a
// Content that is long is kept, and not to be changed; nothing else is. After an error
// the encoder is as it was before.
func (e *TreeEncoder) Add(n *Node) error {
	if err := n.validate(); err != nil {
		return err
	}
	if n.Name <= e.last { // no valid name is empty
		return fmt.Errorf("%.300q comes after %.300q", n.Name, e.last)
	}
	if n.Long != 0 {
		return fmt.Errorf("encode %.300q: %d blobs are left out", n.Name, n.Long)
	}
	start := len(e.buf)
	if e.last != "" {
		e.buf = append(e.buf, ',')
	}
	buf, at, err := appendNode(e.buf, n)
	if err != nil {
		e.buf = e.buf[:start]
		return fmt.Errorf("encode %.300q: %w", n.Name, err)
	}
	if len(n.Content) >= longContent {
		e.lists = append(e.lists, contentList{at, n.Content})
	}
	e.buf, e.last = buf, n.Name
	return nil
}

// Finish returns the tree. The encoder is then that of an empty folder again.
func (e *TreeEncoder) Finish() *Tree {
	tree := &Tree{text: append(e.buf, treeEnd...), lists: e.lists}
	*e = *NewTreeEncoder()
	return tree
}

// EncodeTree returns the tree of nodes, which are in ascending byte order of their
// names.
func EncodeTree(nodes []Node) (*Tree, error) {
	e := NewTreeEncoder()
	for i := range nodes {
		if err := e.Add(&nodes[i]); err != nil {
			return nil, err
		}
	}
	return e.Finish(), nil
}

// appendNode appends a node as encoding/json would write [nodeJSON], and returns where
// its content ends, or is to be put in where that is long. It is written out because a
// backup of an unchanged guest does little else.
func appendNode(b []byte, n *Node) (_ []byte, at int, err error) {
	b = append(b, `{"name":`...)
	b = appendString(b, quoteName(n.Name))
	b = appendString(append(b, `,"type":`...), string(n.Type))
	b = appendUint(b, "mode", uint64(n.Mode))
	for _, t := range []struct {
		key  string
		time time.Time
	}{{"mtime", n.ModTime}, {"atime", n.AccessTime}, {"ctime", n.ChangeTime}} {
		b = append(append(append(b, `,"`...), t.key...), `":"`...)
		if b, err = fixTime(t.time).AppendText(b); err != nil {
			return nil, 0, fmt.Errorf("%w: %w", errZone, err)
		}
		b = append(b, '"')
	}
	b = strconv.AppendUint(append(b, `,"uid":`...), uint64(n.UID), 10)
	b = strconv.AppendUint(append(b, `,"gid":`...), uint64(n.GID), 10)
	b = appendOptional(b, "user", n.User)
	b = appendOptional(b, "group", n.Group)
	b = appendUint(b, "inode", n.Inode)
	b = appendUint(b, "device_id", n.DeviceID)
	b = appendUint(b, "size", n.Size)
	b = appendUint(b, "links", n.Links)
	b = appendOptional(b, "linktarget", n.LinkTarget)
	if !utf8.ValidString(n.LinkTarget) {
		b = appendBase64(append(b, `,"linktarget_raw":`...), []byte(n.LinkTarget))
	}
	b = appendXattrs(b, n.Xattrs)
	if b, err = appendAttributes(b, n.Attributes); err != nil {
		return nil, 0, err
	}
	b = appendUint(b, "device", n.Device)
	b, at = appendContent(append(b, `,"content":`...), n.Content)
	if n.Subtree != nil {
		b = appendID(append(b, `,"subtree":`...), *n.Subtree)
	}
	b = appendOptional(b, "error", n.Error)
	return append(b, '}'), at, nil
}

// quoteName is how restic makes any name valid UTF-8: as Go writes it in source,
// without the quotation marks.
func quoteName(name string) string {
	for i := range len(name) {
		if c := name[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted := strconv.Quote(name)
			return quoted[1 : len(quoted)-1]
		}
	}
	return name
}

// appendString appends a JSON string as encoding/json writes it, invalid UTF-8
// replaced.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string has no error
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// appendOptional appends a field, unless it is empty.
func appendOptional(b []byte, key, s string) []byte {
	if s == "" {
		return b
	}
	return appendString(append(append(append(b, `,"`...), key...), `":`...), s)
}

// appendUint appends a field, unless it is 0.
func appendUint(b []byte, key string, v uint64) []byte {
	if v == 0 {
		return b
	}
	return strconv.AppendUint(append(append(append(b, `,"`...), key...), `":`...), v, 10)
}

func appendBase64(b, p []byte) []byte {
	if p == nil {
		return append(b, "null"...)
	}
	return append(base64.StdEncoding.AppendEncode(append(b, '"'), p), '"')
}

func appendXattrs(b []byte, xattrs []Xattr) []byte {
	if len(xattrs) == 0 {
		return b
	}
	b = append(b, `,"extended_attributes":[`...)
	for i, x := range xattrs {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"name":`...), x.Name)
		b = appendBase64(append(b, `,"value":`...), x.Value)
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendAttributes(b []byte, attrs map[string]json.RawMessage) ([]byte, error) {
	if len(attrs) == 0 {
		return b, nil
	}
	j, err := json.Marshal(attrs)
	if err != nil {
		return nil, err
	}
	return append(append(b, `,"generic_attributes":`...), j...), nil
}

// appendContent appends the content of a file, as far as it is not long, and returns
// where it ends.
func appendContent(b []byte, content []ID) (_ []byte, at int) {
	if content == nil {
		return append(b, "null"...), 0
	}
	b = append(b, '[')
	if len(content) < longContent {
		b = appendIDs(b, content)
	}
	at = len(b)
	return append(b, ']'), at
}

// appendIDs appends what is in the array of a file's content.
func appendIDs(b []byte, ids []ID) []byte {
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendID(b, id)
	}
	return b
}

func appendID(b []byte, id ID) []byte {
	b, _ = id.AppendText(append(b, '"')) // has no error
	return append(b, '"')
}

// fixTime moves a time into the years that the format can keep, as restic does.
func fixTime(t time.Time) time.Time {
	const last = 9999
	switch year := t.Year(); {
	case year < 0:
		return t.AddDate(-year, 0, 0)
	case year > last:
		return t.AddDate(last-year, 0, 0)
	}
	return t
}
