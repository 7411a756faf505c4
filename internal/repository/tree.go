package repository

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// TreeEncoder turns the nodes of a folder into the bytes of a tree blob: the same
// bytes that restic writes for them, so that both deduplicate against each other.
// The zero value is not ready: use [NewTreeEncoder].
type TreeEncoder struct {
	buf  []byte
	last string
}

const (
	treeStart = `{"nodes":[`
	treeEnd   = "]}\n"
)

// NewTreeEncoder returns an encoder of an empty folder.
func NewTreeEncoder() *TreeEncoder { return &TreeEncoder{buf: []byte(treeStart)} }

// Size is the bytes that were encoded so far. SaveBlob refuses more than 512 MiB.
func (e *TreeEncoder) Size() int { return len(e.buf) }

// Add adds a node. Nodes come in ascending byte order of their names. The node is
// not kept. After an error the encoder is as it was before.
func (e *TreeEncoder) Add(n *Node) error {
	if err := n.validate(); err != nil {
		return err
	}
	if n.Name <= e.last { // no valid name is empty
		return fmt.Errorf("%.300q comes after %.300q", n.Name, e.last)
	}
	start := len(e.buf)
	if e.last != "" {
		e.buf = append(e.buf, ',')
	}
	buf, err := appendNode(e.buf, n)
	if err != nil {
		e.buf = e.buf[:start]
		return fmt.Errorf("encode %.300q: %w", n.Name, err)
	}
	e.buf, e.last = buf, n.Name
	return nil
}

// Finish returns the tree blob, which is the caller's. The encoder is then that of
// an empty folder again.
func (e *TreeEncoder) Finish() []byte {
	tree := append(e.buf, treeEnd...)
	*e = *NewTreeEncoder()
	return tree
}

// EncodeTree returns the tree blob of nodes, which are in ascending byte order of
// their names.
func EncodeTree(nodes []Node) ([]byte, error) {
	e := NewTreeEncoder()
	for i := range nodes {
		if err := e.Add(&nodes[i]); err != nil {
			return nil, err
		}
	}
	return e.Finish(), nil
}

// appendNode appends a node as encoding/json would write [nodeJSON]. It is
// written out because a backup of an unchanged guest does little else.
func appendNode(b []byte, n *Node) ([]byte, error) {
	b = append(b, `{"name":`...)
	b = appendString(b, quoteName(n.Name))
	b = appendString(append(b, `,"type":`...), string(n.Type))
	b = appendUint(b, "mode", uint64(n.Mode))
	for _, t := range []struct {
		key  string
		time time.Time
	}{{"mtime", n.ModTime}, {"atime", n.AccessTime}, {"ctime", n.ChangeTime}} {
		var err error
		b = append(append(append(b, `,"`...), t.key...), `":"`...)
		if b, err = fixTime(t.time).AppendText(b); err != nil {
			return nil, fmt.Errorf("%w: %w", errZone, err)
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
	b, err := appendAttributes(b, n.Attributes)
	if err != nil {
		return nil, err
	}
	b = appendUint(b, "device", n.Device)
	b = appendContent(append(b, `,"content":`...), n.Content)
	if n.Subtree != nil {
		b = appendID(append(b, `,"subtree":`...), *n.Subtree)
	}
	b = appendOptional(b, "error", n.Error)
	return append(b, '}'), nil
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

func appendContent(b []byte, content []ID) []byte {
	if content == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i, id := range content {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendID(b, id)
	}
	return append(b, ']')
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

// nodeJSON is a node as the format spells it. The order of the fields is restic's,
// and part of what makes the bytes the same.
type nodeJSON struct {
	Name          string         `json:"name"`
	Type          NodeType       `json:"type"`
	Mode          uint32         `json:"mode,omitempty"`
	ModTime       time.Time      `json:"mtime"`
	AccessTime    time.Time      `json:"atime"`
	ChangeTime    time.Time      `json:"ctime"`
	UID           uint32         `json:"uid"`
	GID           uint32         `json:"gid"`
	User          string         `json:"user,omitempty"`
	Group         string         `json:"group,omitempty"`
	Inode         uint64         `json:"inode,omitempty"`
	DeviceID      uint64         `json:"device_id,omitempty"`
	Size          uint64         `json:"size,omitempty"`
	Links         uint64         `json:"links,omitempty"`
	LinkTarget    string         `json:"linktarget,omitempty"`
	LinkTargetRaw []byte         `json:"linktarget_raw,omitempty"` // where LinkTarget is not UTF-8
	Xattrs        xattrsJSON     `json:"extended_attributes,omitempty"`
	Attributes    attributesJSON `json:"generic_attributes,omitempty"`
	Device        uint64         `json:"device,omitempty"`
	Content       contentJSON    `json:"content"`
	Subtree       *ID            `json:"subtree,omitempty"`
	Error         string         `json:"error,omitempty"`
}

// maxTreeNodes bounds a folder: at some 400 bytes a node, more could not be in a
// blob that SaveBlob takes.
const maxTreeNodes = 2 << 20

// DecodeTree reads a tree blob. It refuses names that could leave the folder,
// names that come twice or out of order, and nodes that cannot be what they say
// they are, with [ErrDamaged]. Fields that it does not know it passes over.
func DecodeTree(data []byte) ([]Node, error) {
	var nodes []Node
	err := WalkTree(data, func(n *Node) error {
		nodes = append(nodes, *n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return nodes, nil
}

// errFound ends a search.
var errFound = errors.New("found")

// Children returns the nodes of these names in the folder whose tree is given; nil for
// one that is not there. A folder with large nodes is read but once.
func (r *Repository) Children(ctx context.Context, folder ID, names ...string) ([]*Node, error) {
	data, err := r.LoadBlob(ctx, TreeBlob, folder, nil)
	if err != nil {
		return nil, err
	}
	found, missing := make([]*Node, len(names)), len(names)
	err = WalkTree(data, func(n *Node) error {
		i := slices.Index(names, n.Name)
		if i < 0 {
			return nil
		}
		found[i] = n
		if missing--; missing == 0 {
			return errFound
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFound) {
		return nil, err
	}
	return found, nil
}

// LoadSmall returns the content of a file of at most limit bytes. A larger one, and
// what is no file, is [ErrLimit].
func (r *Repository) LoadSmall(ctx context.Context, n *Node, limit int) ([]byte, error) {
	if n.Type != NodeFile || n.Size > uint64(limit) {
		return nil, fmt.Errorf("%w: a %s of %d bytes, and it should be a file of at most %d", ErrLimit, n.Type, n.Size, limit)
	}
	var text []byte
	for _, id := range n.Content {
		part, err := r.LoadBlob(ctx, DataBlob, id, nil)
		if err != nil {
			return nil, err
		}
		if text = append(text, part...); len(text) > limit {
			return nil, fmt.Errorf("%w: a file has more than %d bytes", ErrLimit, limit)
		}
	}
	return text, nil
}

// WalkTree does what DecodeTree does node by node, for folders that are too large
// to hold. It stops at the first error of yield, and returns that.
func WalkTree(data []byte, yield func(*Node) error) error {
	done, whole, err := walkPlain(data, yield)
	if whole || err != nil {
		return err
	}
	return walkJSON(data, done, yield)
}

// walkJSON is WalkTree for any notation, behind the first nodes, which were passed to
// yield already.
func walkJSON(data []byte, done int, yield func(*Node) error) error {
	w := newJSONWalker(data)
	count, last := 0, ""
	var stopped error
	err := w.object(func(key string) error {
		if key != "nodes" {
			return w.skip()
		}
		return w.array(func() error {
			n, err := decodeNode(w)
			if err != nil {
				return err
			}
			if n.Name <= last { // no valid name is empty
				return fmt.Errorf("%.300q comes after %.300q", n.Name, last)
			}
			if count++; count > maxTreeNodes {
				return fmt.Errorf("%w: more than %d entries", ErrLimit, maxTreeNodes)
			}
			last = n.Name
			if count > done {
				stopped = yield(&n)
			}
			return stopped
		})
	})
	if stopped != nil {
		return stopped
	}
	if err == nil {
		err = w.end()
	}
	if err != nil {
		return fmt.Errorf("tree: %w: %w", ErrDamaged, err)
	}
	return nil
}

// decodeNode reads one node, and checks it.
func decodeNode(w jsonWalker) (Node, error) {
	var j nodeJSON
	if err := w.value(&j); err != nil {
		return Node{}, err
	}
	name, err := strconv.Unquote(`"` + j.Name + `"`)
	if err != nil {
		return Node{}, fmt.Errorf("the name %.300q is not quoted as it should be: %w", j.Name, err)
	}
	n := Node{
		Name: name, Type: j.Type, Mode: fs.FileMode(j.Mode),
		ModTime: j.ModTime, AccessTime: j.AccessTime, ChangeTime: j.ChangeTime,
		UID: j.UID, GID: j.GID, User: j.User, Group: j.Group,
		Inode: j.Inode, DeviceID: j.DeviceID, Size: j.Size, Links: j.Links,
		LinkTarget: j.LinkTarget, Xattrs: j.Xattrs, Device: j.Device,
		Content: j.Content, Subtree: j.Subtree, Attributes: j.Attributes, Error: j.Error,
	}
	if j.LinkTargetRaw != nil {
		n.LinkTarget = string(j.LinkTargetRaw)
	}
	return n, n.validate()
}
