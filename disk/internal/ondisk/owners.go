package ondisk

import (
	"fmt"
	"sync"
)

// Owners says which directory each unit of a disk belongs to: the one that was read
// first. Without it directories could lead in a circle, or a disk of a few megabytes hold
// thousands that share thousands of entries. It is safe for concurrent use.
type Owners struct {
	Layer Layer
	Unit  string // what the units are: "cluster"
	Limit int    // how many units all directories may have together

	mu  sync.Mutex
	ino map[uint64]uint64 // by unit
}

// Claim notes that a unit, which lies at byte off, belongs to directory ino.
func (o *Owners) Claim(unit, ino uint64, off int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	owner, known := o.ino[unit]
	switch structure := fmt.Sprintf("directory %d", ino); {
	case known && owner != ino:
		return o.Layer.Damaged(structure, off, "its %s %d is one of directory %d as well", o.Unit, unit, owner)
	case known:
	case len(o.ino) == o.Limit:
		return o.Layer.Beyond(structure, off, "the directories that were read have more than %d %ss", o.Limit, o.Unit)
	case o.ino == nil:
		o.ino = map[uint64]uint64{unit: ino}
	default:
		o.ino[unit] = ino
	}
	return nil
}
