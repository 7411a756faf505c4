package xfs

import (
	"errors"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
)

// TestAttributeNames has the namespaces that flags tell, and the names that mean more.
func TestAttributeNames(t *testing.T) {
	const acl = "\x00\x00\x00\x01" + "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x07\x00\x00" // the owner may do all
	for _, c := range []struct {
		flags       byte
		name, value string
		want        string // names; or, with "!", what is wrong
	}{
		{0, "a", "v", "user.a"},
		{attrRoot, "a", "v", "trusted.a"},
		{attrSecure, "selinux", "v", "security.selinux"},
		{attrRoot | attrSecure, "a", "v", `!"a" is in two namespaces`},
		{attrRoot, "SGI_ACL_FILE", acl, "trusted.SGI_ACL_FILE system.posix_acl_access"},
		{attrRoot, "SGI_ACL_DEFAULT", acl, "trusted.SGI_ACL_DEFAULT system.posix_acl_default"},
		{0, "SGI_ACL_FILE", acl, "user.SGI_ACL_FILE"}, // anybody can have that
		{attrSecure, "SGI_ACL_FILE", acl, "security.SGI_ACL_FILE"},
		{attrRoot, "SGI_ACL_FILE", "v", "!an ACL"},
	} {
		a := &attributes{inode: &inode{}}
		err := a.add(c.flags, []byte(c.name), []byte(c.value))
		var names []string
		for _, x := range a.list {
			names = append(names, string(x.Name))
		}
		if wrong, refused := strings.CutPrefix(c.want, "!"); refused && (!errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), wrong)) ||
			!refused && (err != nil || strings.Join(names, " ") != c.want) {
			t.Errorf("%q with flags %#x: %q, %v, want %q", c.name, c.flags, names, err, c.want)
		}
	}
}

// TestXattrLimit has as many bytes of names and values as are read, and one more.
func TestXattrLimit(t *testing.T) {
	for total, want := range map[int]error{maxXattrTotal - 5: nil, maxXattrTotal - 4: disk.ErrLimit} {
		a := &attributes{inode: &inode{}, total: total}
		if err := a.add(0, []byte("na"), []byte("val")); !errors.Is(err, want) {
			t.Errorf("5 bytes behind %d: %v, want %v", total, err, want)
		}
	}
}

// TestOwnerLimit has as many forks that got the tree of another as are kept, and one more.
func TestOwnerLimit(t *testing.T) {
	var i intents
	for ino := range uint64(maxOwners) {
		if !i.newOwner(ino, false) || ino%4096 == 0 && !i.newOwner(ino, false) {
			t.Fatalf("fork %d is one too many", ino)
		}
	}
	if i.newOwner(0, true) {
		t.Error("there are more than may be")
	}
}
