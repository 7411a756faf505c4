package disktest

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Node is one file as a test sees it, in a form that can be compared and
// printed.
type Node struct {
	Ino      uint64
	Mode     uint32
	UID, GID uint32
	Links    uint32
	Size     int64
	Rdev     string
	Times    string // access, modify, change, birth
	Xattrs   string
	Target   string
	Content  string // digest, or the error
	Data     string // the ranges that are not holes
}

// Tree is a filesystem by path; the root is "".
type Tree map[string]Node

func formatTime(sec int64, nsec uint32) string { return fmt.Sprintf("%d.%09d", sec, nsec) }

func formatDevice(major, minor uint32) string { return fmt.Sprintf("%d:%d", major, minor) }

// IsType reports whether a mode is of a type.
func IsType(mode, kind uint32) bool { return mode&unix.S_IFMT == kind }

// WithoutPlace forgets what a copy cannot keep: inode numbers and times, the size
// of directories, where exactly a file has holes, and all of the root.
func WithoutPlace(all Tree) Tree {
	out := make(Tree)
	for path, n := range all {
		n.Ino, n.Times, n.Data = 0, "", ""
		if IsType(n.Mode, unix.S_IFDIR) {
			n.Size = 0
		}
		if path == "" {
			n = Node{}
		}
		out[path] = n
	}
	return out
}

// CompareTrees reports every difference.
func CompareTrees(t testing.TB, want, got Tree) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		if len(diff) > 8000 {
			diff = diff[:8000] + "…"
		}
		t.Errorf("the kernel (-) and we (+) differ:\n%s", diff)
	}
}
