package nbd

import (
	"encoding/binary"
	"errors"

	"github.com/drydock-vm/drydock/disk"
)

// errEnough ends a listing of extents.
var errEnough = errors.New("enough")

// blockStatus answers cmdBlockStatus. The reply may cover less than the client
// asked for, and does if there are very many extents, or an error behind some.
func (t *transmission) blockStatus(r request) {
	most := maxStatus
	if r.flags&cmdFlagReqOne != 0 {
		most = 1
	}
	payload := binary.BigEndian.AppendUint32(nil, contextID)
	count := 0
	err := t.extents(r, func(e disk.Extent) error {
		payload = binary.BigEndian.AppendUint32(payload, uint32(e.Length))
		payload = binary.BigEndian.AppendUint32(payload, stateOf(e.Kind))
		if count++; count == most {
			return errEnough
		}
		return nil
	})
	if err != nil && count == 0 {
		t.sendError(r, errIO, t.diskError(err))
		return
	}
	b := appendChunk(nil, chunkBlockStatus, r.cookie, len(payload))
	finish(b)
	t.send(append(b, payload...))
}

// stateOf says in the protocol's words what is known about an extent.
func stateOf(k disk.ExtentKind) uint32 {
	switch k {
	case disk.ExtentZero:
		return stateZero
	case disk.ExtentHole:
		return stateHole | stateZero
	}
	return 0
}
