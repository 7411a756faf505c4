package repository

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"time"
)

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

// treeWindow is how much of a tree that is read from a stream is held at once, in bytes.
const treeWindow = 64 << 10

// treeReader reads a tree node by node. Of the JSON of one node all but the content is
// held, so that a disk of two million blobs takes their IDs and no more.
type treeReader struct {
	rd   io.Reader // of what comes behind buf; nil if nothing does
	left int       // bytes that rd has at most
	buf  []byte
	pos  int // in buf

	window []byte // what buf is a part of, if there is an rd
	json   []byte // of what is being read
	ids    []ID   // room for a content

	piece   func(ID) error // takes each blob of a content, unless it is nil: it is not kept then
	stopped error          // of piece, or of who takes the nodes
}

// newTreeReader returns a reader of a stream of at most size bytes.
func newTreeReader(rd io.Reader, size int) *treeReader {
	return &treeReader{rd: rd, left: size, window: make([]byte, treeWindow)}
}

// walk calls yield for each node. It refuses names that could leave the folder, names
// that come twice or out of order, and nodes that cannot be what they say they are, with
// [ErrDamaged]. Fields that it does not know it passes over. It stops at the first error
// of yield, and returns that.
func (r *treeReader) walk(yield func(*Node) error) error {
	seen := map[string]bool{}
	err := r.members(func(quoted []byte) error {
		var key string
		if err := json.Unmarshal(quoted, &key); err != nil || seen[key] {
			return fmt.Errorf("key %.80q is no string, or comes twice", quoted)
		}
		if len(seen) == maxMembers {
			return fmt.Errorf("%w: more than %d keys", ErrLimit, maxMembers)
		}
		seen[key] = true
		if key != "nodes" {
			return r.skip()
		}
		return r.nodes(func(n *Node) error {
			r.stopped = yield(n)
			return r.stopped
		})
	})
	if r.stopped != nil {
		return r.stopped
	}
	if err == nil {
		err = r.end()
	}
	if err != nil {
		return fmt.Errorf("tree: %w: %w", ErrDamaged, err)
	}
	return nil
}

// nodes reads the array of all nodes, or null.
func (r *treeReader) nodes(yield func(*Node) error) error {
	c, err := r.peek()
	if err != nil {
		return err
	}
	if c != '[' {
		r.json = r.json[:0]
		if err := r.value(); err != nil {
			return err
		}
		if string(r.json) != "null" {
			return errors.New("the nodes are no array")
		}
		return nil
	}
	count, last := 0, ""
	return r.elements(func() error {
		n, err := r.node()
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
		return yield(&n)
	})
}

// node reads one node, and checks it.
func (r *treeReader) node() (Node, error) {
	r.json = r.json[:0]
	var content []ID
	told, long := false, 0
	err := r.members(func(key []byte) error {
		if string(key) != `"content"` {
			return r.value()
		}
		if told {
			return errors.New("content comes twice")
		}
		told = true
		if c, err := r.peek(); err != nil || c != '[' {
			return errors.Join(err, r.value())
		}
		var err error
		content, long, err = r.content()
		return err
	})
	if err != nil {
		return Node{}, err
	}
	if n, ok := plainNode(r.json); ok {
		n.Content, n.Long = content, long
		return n, n.validate()
	}
	var j nodeJSON
	if err := json.Unmarshal(r.json, &j); err != nil {
		return Node{}, err
	}
	return j.node(content, long)
}

// node is the node, which is checked.
func (j *nodeJSON) node(content []ID, long int) (Node, error) {
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
		Content: content, Long: long, Subtree: j.Subtree, Attributes: j.Attributes, Error: j.Error,
	}
	if j.LinkTargetRaw != nil {
		n.LinkTarget = string(j.LinkTargetRaw)
	}
	return n, n.validate()
}

// quotedID is how many bytes an ID takes in JSON.
const quotedID = 1 + 2*len(ID{}) + 1

// content reads an array of IDs as restic writes them, and of nothing else: null would be
// a blob as well, and 32 bytes for 5. In r.json it is null. Long is how many r.piece took.
func (r *treeReader) content() (_ []ID, long int, err error) {
	r.ids = r.ids[:0]
	start := len(r.json)
	err = r.elements(func() error {
		r.json = r.json[:start]
		b, err := r.ahead(quotedID)
		if err != nil {
			return err
		}
		if b[0] != '"' || b[quotedID-1] != '"' {
			return errContent
		}
		var id ID
		if err := id.UnmarshalText(b[1 : quotedID-1]); err != nil {
			return err
		}
		r.pos += quotedID
		if r.piece != nil {
			long++
			r.stopped = r.piece(id)
			return r.stopped
		}
		if n := len(r.ids); n == cap(r.ids) && n >= longContent {
			// Not more than can come: twice as many would be too many at once.
			r.ids = slices.Grow(r.ids, (r.left+len(r.buf)-r.pos)/quotedID+1)
		}
		r.ids = append(r.ids, id)
		return nil
	})
	r.json = append(r.json[:start], "null"...)
	if err != nil {
		return nil, 0, err
	}
	if len(r.ids) < longContent || len(r.ids) < cap(r.ids)/2 {
		return append(make([]ID, 0, len(r.ids)), r.ids...), long, nil
	}
	ids := r.ids
	r.ids = nil
	return ids, long, nil
}
