package wire

import "github.com/drydock-vm/drydock/disk"

// Describe asks what the files with these inodes are, of which a directory was
// listed with names alone; Contents is as in [ReadDir]. The answer has one item for
// each, in order: see [DecodeDescriptions].
type Describe struct {
	Tree     uint32
	Contents bool
	Inos     []uint64
}

// Append appends the encoded request to b.
func (r Describe) Append(b []byte) []byte {
	b = putU32(putBool(putU32(b, r.Tree), r.Contents), uint32(len(r.Inos)))
	for _, ino := range r.Inos {
		b = putU64(b, ino)
	}
	return b
}

// DecodeDescribe decodes a [Describe].
func DecodeDescribe(payload []byte) (Describe, error) {
	d := decoder{buf: payload}
	r := Describe{Tree: d.u32(), Contents: d.bool()}
	for range d.count(MaxDescribe, 8) {
		r.Inos = append(r.Inos, d.u64())
	}
	if len(r.Inos) == 0 {
		d.fail("no inode")
	}
	return r, d.done()
}

// AppendDescription appends one item of the answer to [Describe] to b: all of an
// entry but its name. Of one without an inode nothing is told.
func AppendDescription(b []byte, e *Entry) []byte {
	return appendTold(putU8(b, e.flags()), e)
}

// DecodeDescriptions decodes the answer to r, as entries without names. files has
// the sizes of the files that pieces may lie in.
func DecodeDescriptions(payload []byte, r Describe, files []int64) ([]Entry, error) {
	d := decoder{buf: payload, contents: r.Contents}
	list := make([]Entry, 0, len(r.Inos))
	for _, ino := range r.Inos {
		e := Entry{DirEntry: disk.DirEntry{Ino: ino}}
		d.told(&e, d.flags(), files)
		if d.err != nil {
			return nil, d.err
		}
		list = append(list, e)
	}
	return list, d.done()
}
