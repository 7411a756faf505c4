package repository

import (
	"encoding/json"
	"io/fs"
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
)

// Node is one entry of a folder. Strings are bytes: not UTF-8, and not safe to
// print or to use as a path.
type Node struct {
	Name string // 1 byte or more, never with '/' or NUL in it, never "." or ".."
	Type NodeType
	Mode fs.FileMode // type and permission bits, as [FileMode] makes them

	ModTime, AccessTime, ChangeTime time.Time

	UID, GID    uint32
	User, Group string // names of these; may be empty

	Inode    uint64
	DeviceID uint64 // tells inode numbers of different filesystems apart; restic compares it for hardlinks
	Size     uint64 // bytes; files only
	Links    uint64

	LinkTarget string  // symlinks only
	Xattrs     []Xattr // sorted by name
	Device     uint64  // st_rdev in Linux's encoding (unix.Mkdev); devices only

	// Content is the blobs of a file, in order. An empty file has an empty
	// slice, everything that is no file nil.
	Content []ID
	Subtree *ID // directories only, and there always

	// Attributes is what restic has no field for, by name. Restic keeps
	// Windows' attributes here ("windows.creation_time").
	Attributes map[string]json.RawMessage

	Error string // why the node is not whole; may be empty
}

// Xattr is one extended attribute, with its full name.
type Xattr struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
}

// FileMode turns st_mode of Linux into the bits that restic stores.
func FileMode(mode uint32) fs.FileMode { return 0 }

// UnixMode turns the bits that restic stores into st_mode of Linux.
func UnixMode(mode fs.FileMode) uint32 { return 0 }
