package repository

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// NodeType is what a node is.
type NodeType string

// The types of node.
const (
	NodeFile    NodeType = "file"
	NodeDir     NodeType = "dir"
	NodeSymlink NodeType = "symlink"
	NodeDev     NodeType = "dev" // block device
	NodeCharDev NodeType = "chardev"
	NodeFIFO    NodeType = "fifo"
	NodeSocket  NodeType = "socket"
	// NodeIrregular is what restic found and had no type for.
	NodeIrregular NodeType = "irregular"
)

// Node is one entry of a folder. Strings are bytes: not UTF-8, and not safe to
// print or to use as a path.
type Node struct {
	Name string // 1 byte or more, never with '/' or NUL in it, never "." or ".."
	Type NodeType
	Mode fs.FileMode // type and permission bits, as [FileMode] makes them

	// The format keeps the years 0 to 9999; what lies outside is moved to the
	// nearest of these years when it is encoded, as restic does.
	ModTime, AccessTime, ChangeTime time.Time

	UID, GID    uint32
	User, Group string // names of these; may be empty

	Inode    uint64
	DeviceID uint64 // tells inode numbers of different filesystems apart
	Size     uint64 // bytes; files only
	Links    uint64 // more than 1 makes restic look for hardlinks

	LinkTarget string  // symlinks only
	Xattrs     []Xattr // in the order of the filesystem, or sorted
	Device     uint64  // st_rdev in Linux's encoding (unix.Mkdev); devices only

	// Content is the blobs of a file, in order. An empty file has an empty
	// slice, everything that is no file nil.
	Content []ID
	// Long is how many blobs a file has that are not in Content: see [Tree.WalkPieces] and
	// [Tree.WalkBrief]. Such a node cannot be encoded.
	Long    int
	Subtree *ID // directories only, and there always

	// Attributes is what restic has no field for, by name, each a JSON value.
	// Restic keeps Windows' attributes here ("windows.creation_time"), and
	// passes over names that it does not know.
	Attributes map[string]json.RawMessage

	Error string // why the node is not whole; may be empty
}

// Xattr is one extended attribute, with its full name.
type Xattr struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
}

// validate refuses what no folder can hold, and what a restore could be led
// astray with.
func (n *Node) validate() error {
	switch {
	case n.Name == "" || n.Name == "." || n.Name == ".." || strings.ContainsAny(n.Name, "/\x00"):
		return fmt.Errorf("the name %.300q is not one that a folder can hold", n.Name)
	case n.Type == NodeDir && n.Subtree == nil:
		return fmt.Errorf("folder %.300q has no subtree", n.Name)
	case n.Type != NodeDir && n.Subtree != nil:
		return fmt.Errorf("%.300q is a %.20q, and has a subtree", n.Name, n.Type)
	case n.Type != NodeFile && (len(n.Content) != 0 || n.Long != 0):
		return fmt.Errorf("%.300q is a %.20q, and has content", n.Name, n.Type)
	}
	switch n.Type {
	case NodeFile, NodeDir, NodeSymlink, NodeDev, NodeCharDev, NodeFIFO, NodeSocket, NodeIrregular:
		return nil
	}
	return fmt.Errorf("%.300q has the unknown type %.20q", n.Name, n.Type)
}

// errZone is of a time that JSON cannot keep.
var errZone = errors.New("a time's zone is not whole minutes within a day")

// The bits of st_mode that have another place in [fs.FileMode].
var modeBits = []struct {
	unix uint32
	mode fs.FileMode
}{
	{0o4000, fs.ModeSetuid},
	{0o2000, fs.ModeSetgid},
	{0o1000, fs.ModeSticky},
}

// The file types in st_mode. A regular file has no bit in [fs.FileMode].
var modeTypes = []struct {
	unix uint32
	mode fs.FileMode
	node NodeType
}{
	{0o100000, 0, NodeFile},
	{0o040000, fs.ModeDir, NodeDir},
	{0o120000, fs.ModeSymlink, NodeSymlink},
	{0o060000, fs.ModeDevice, NodeDev},
	{0o020000, fs.ModeDevice | fs.ModeCharDevice, NodeCharDev},
	{0o010000, fs.ModeNamedPipe, NodeFIFO},
	{0o140000, fs.ModeSocket, NodeSocket},
}

const unixTypeMask = 0o170000

// TypeOf returns the type of node for st_mode of Linux; false for a type that Linux
// does not have.
func TypeOf(mode uint32) (NodeType, bool) {
	for _, t := range modeTypes {
		if mode&unixTypeMask == t.unix {
			return t.node, true
		}
	}
	return NodeIrregular, false
}

// FileMode turns st_mode of Linux into the bits that restic stores. A type that
// Linux does not have becomes [fs.ModeIrregular].
func FileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for _, b := range modeBits {
		if mode&b.unix != 0 {
			m |= b.mode
		}
	}
	for _, t := range modeTypes {
		if mode&unixTypeMask == t.unix {
			return m | t.mode
		}
	}
	return m | fs.ModeIrregular
}

// UnixMode turns the bits that restic stores into st_mode of Linux. A type that
// Linux does not have becomes none.
func UnixMode(mode fs.FileMode) uint32 {
	m := uint32(mode.Perm())
	for _, b := range modeBits {
		if mode&b.mode != 0 {
			m |= b.unix
		}
	}
	for _, t := range modeTypes {
		if mode&fs.ModeType == t.mode {
			return m | t.unix
		}
	}
	return m
}
