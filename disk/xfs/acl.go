package xfs

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// The tags of ACL entries, on disk and in attributes (acl(5)).
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

const xattrACLVersion = 2 // POSIX_ACL_XATTR_VERSION

// aclNames are the attributes of the namespace "trusted" that hold ACLs, and what
// Linux shows of them besides.
var aclNames = map[string]string{
	"SGI_ACL_FILE":    "system.posix_acl_access",
	"SGI_ACL_DEFAULT": "system.posix_acl_default",
}

// convertACL makes a POSIX ACL as XFS keeps it into the value of the attribute
// system.posix_acl_access or _default as Linux shows it: 4 version, then 2 tag, 2
// permissions, 4 id for each entry, little endian.
//
// Layout on disk (xfs_acl.h), big endian: 4 count, then 4 tag, 4 id, 2
// permissions, 2 unused for each entry.
func convertACL(raw []byte) ([]byte, error) {
	const entry = 12
	c := ondisk.NewCursor(raw, binary.BigEndian)
	count := c.U32()
	if uint64(count)*entry+4 != uint64(len(raw)) {
		return nil, fmt.Errorf("an ACL of %d entries in %d bytes", count, len(raw))
	}
	out := binary.LittleEndian.AppendUint32(make([]byte, 0, len(raw)), xattrACLVersion)
	for range count {
		tag, id, permissions := c.U32(), c.U32(), c.U16()
		c.Skip(2)
		switch tag {
		case aclUserObj, aclGroupObj, aclMask, aclOther:
			id = math.MaxUint32
		case aclUser, aclGroup:
		default:
			return nil, fmt.Errorf("an ACL has an entry with tag %#x", tag)
		}
		out = binary.LittleEndian.AppendUint16(out, uint16(tag))
		out = binary.LittleEndian.AppendUint16(out, permissions)
		out = binary.LittleEndian.AppendUint32(out, id)
	}
	return out, c.Err()
}
