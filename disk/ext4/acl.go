package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
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

const (
	diskACLVersion  = 1 // EXT4_ACL_VERSION
	xattrACLVersion = 2 // POSIX_ACL_XATTR_VERSION
)

var errShortACL = errors.New("an ACL is cut short")

// convertACL makes a POSIX ACL as ext4 keeps it into the value of the attribute
// system.posix_acl_access or _default as Linux shows it: both are lists of
// (2 tag, 2 permissions, 4 id) behind a version of 4 bytes, little endian, but
// on disk the id is left out where the tag has none.
func convertACL(raw []byte) ([]byte, error) {
	if len(raw) < 4 {
		return nil, errShortACL
	}
	if version := binary.LittleEndian.Uint32(raw); version != diskACLVersion {
		return nil, fmt.Errorf("an ACL has version %d, not %d", version, diskACLVersion)
	}
	out := binary.LittleEndian.AppendUint32(make([]byte, 0, 2*len(raw)), xattrACLVersion)
	for rest := raw[4:]; len(rest) > 0; {
		if len(rest) < 4 {
			return nil, errShortACL
		}
		id, size := uint32(math.MaxUint32), 4
		switch tag := binary.LittleEndian.Uint16(rest); tag {
		case aclUserObj, aclGroupObj, aclMask, aclOther:
		case aclUser, aclGroup:
			if len(rest) < 8 {
				return nil, errShortACL
			}
			id, size = binary.LittleEndian.Uint32(rest[4:]), 8
		default:
			return nil, fmt.Errorf("an ACL has an entry with tag %#x", tag)
		}
		out = append(out, rest[:4]...)
		out = binary.LittleEndian.AppendUint32(out, id)
		rest = rest[size:]
	}
	return out, nil
}
