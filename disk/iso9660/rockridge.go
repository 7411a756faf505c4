package iso9660

import (
	"bytes"
	"encoding/binary"

	"github.com/drydock-vm/drydock/disk"
)

// maxTarget bounds the target of a symlink: what Linux takes, without the NUL.
const maxTarget = 4095

// attributes are what Rock Ridge keeps of a file.
type attributes struct {
	posix    bool // mode, links and owner are there
	mode     uint32
	links    uint32
	uid, gid uint32
	rdev     disk.Device

	created, modified, accessed, changed *disk.Time

	name       []byte // appended to in place; empty where there is none
	nameWrong  string // what is wrong with it
	target     []byte
	separate   bool  // a "/" comes before the next component of target
	child      int64 // block of a directory that was moved elsewhere; -1 if it was not
	moved      bool  // it is such a directory, in the place that it was moved to
	compressed bool  // by zisofs
	plainSize  uint32
	sparse     bool
}

// attributesOf reads a record's entries of Rock Ridge (RRIP, section 4.1). The name
// is built in name, which may be nil.
func (fs *Filesystem) attributesOf(ino uint64, r *record, name []byte) (*attributes, error) {
	a := &attributes{child: -1, name: name[:0]}
	if !fs.rockRidge {
		return a, nil
	}
	err := fs.use(ino, r.systemUse, func(signature string, data []byte) error {
		if wrong := a.take(signature, data); wrong != "" {
			return layer.Damaged(inodeName(ino), int64(ino), "its %s entry %s", signature, wrong)
		}
		return nil
	})
	return a, err
}

// take notes an entry, and says what is wrong with it.
func (a *attributes) take(signature string, data []byte) (wrong string) {
	le := binary.LittleEndian
	const short = "is too short"
	switch signature {
	case "PX": // mode, links, owner, group, each both
		if len(data) < 32 {
			return short
		}
		a.posix = true
		a.mode, a.links, a.uid, a.gid = le.Uint32(data), le.Uint32(data[8:]), le.Uint32(data[16:]), le.Uint32(data[24:])
	case "PN": // the high and low 32 bits of a device number, each both
		if len(data) < 16 {
			return short
		}
		a.rdev = deviceOf(le.Uint32(data), le.Uint32(data[8:]))
	case "NM":
		return a.takeName(data)
	case "SL":
		return a.takeTarget(data)
	case "TF":
		return a.takeTimes(data)
	case "CL":
		if len(data) < 8 {
			return short
		}
		a.child = int64(le.Uint32(data))
	case "RE":
		a.moved = true
	case "ZF": // "pz", two bytes of parameters, and the size of the content, both
		if len(data) < 12 {
			return short
		}
		a.compressed, a.plainSize = true, le.Uint32(data[4:])
	case "SF":
		a.sparse = true
	}
	return ""
}

// deviceOf is what Linux makes of the two numbers: those who do not know the high one
// keep a number of 16 bits in the low.
func deviceOf(high, low uint32) disk.Device {
	if high == 0 && low > 0xff {
		return disk.Device{Major: low >> 8, Minor: low & 0xff}
	}
	return disk.Device{Major: high, Minor: low}
}

// takeName takes a part of the name (RRIP, section 4.1.4): flags, and text. A name
// that is none costs the file its entry in the directory, and nothing else.
func (a *attributes) takeName(data []byte) string {
	switch {
	case len(data) < 1:
		return "is too short"
	case data[0]&^1 != 0: // "." and "..", or the host's name
		a.nameWrong = "its name is one that Rock Ridge keeps for itself"
	case len(a.name)+len(data)-1 > maxName:
		a.nameWrong = "its name is longer than 255 bytes"
	default:
		a.name = append(a.name, data[1:]...)
	}
	return ""
}

// The flags of a component of a symlink's target (RRIP, section 4.1.3.1).
const (
	componentContinues = 1 << 0
	componentCurrent   = 1 << 1
	componentParent    = 1 << 2
	componentRoot      = 1 << 3
)

// takeTarget takes a part of a symlink's target: flags, and components, each of which
// has flags, a length, and text.
func (a *attributes) takeTarget(data []byte) string {
	if len(data) < 1 {
		return "is too short"
	}
	for data = data[1:]; len(data) > 0; {
		if len(data) < 2 || 2+int(data[1]) > len(data) {
			return "ends within a component"
		}
		flags, text := data[0], data[2:][:data[1]]
		data = data[2+len(text):]
		switch flags &^ componentContinues {
		case 0:
		case componentCurrent:
			text = []byte(".")
		case componentParent:
			text = []byte("..")
		case componentRoot:
			a.target, a.separate = append(a.target, '/'), false
			continue
		default:
			return "has a component of a kind that is not known"
		}
		if a.separate {
			a.target = append(a.target, '/')
		}
		a.target, a.separate = append(a.target, text...), flags&componentContinues == 0
		switch {
		case bytes.IndexByte(text, 0) >= 0:
			return "has a NUL in it"
		case len(a.target) > maxTarget:
			return "makes the target longer than 4095 bytes"
		}
	}
	return ""
}

// takeTimes takes times (RRIP, section 4.1.6): flags that say which there are, and
// those, in this order, each of 7 bytes or of 17.
func (a *attributes) takeTimes(data []byte) string {
	if len(data) < 1 {
		return "is too short"
	}
	flags, data := data[0], data[1:]
	size, decode := 7, shortTime
	if flags&0x80 != 0 {
		size, decode = 17, longTime
	}
	for bit, to := range []**disk.Time{&a.created, &a.modified, &a.accessed, &a.changed} {
		if flags>>bit&1 == 0 {
			continue
		}
		if len(data) < size {
			return "is too short"
		}
		t := decode(data[:size])
		*to, data = &t, data[size:]
	}
	return ""
}
