package partition

import (
	"encoding/binary"
	"fmt"
)

// GUID is a UEFI GUID in the byte order of the disk: the first three groups are
// little-endian.
type GUID [16]byte

// String returns the GUID as people write it, in upper case.
func (g GUID) String() string {
	return fmt.Sprintf("%08X-%04X-%04X-%04X-%012X",
		binary.LittleEndian.Uint32(g[0:]), binary.LittleEndian.Uint16(g[4:]),
		binary.LittleEndian.Uint16(g[6:]), g[8:10], g[10:])
}
