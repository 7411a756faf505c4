package wire

import "github.com/drydock-vm/drydock/disk"

const (
	timeSize  = 8 + 4
	inodeSize = 8 + 4 + 4*4 + 8 + 4 + 4 + 4 + 4*timeSize
)

func putTime(b []byte, t disk.Time) []byte { return putU32(putI64(b, t.Sec), t.Nsec) }

func (d *decoder) time() disk.Time { return disk.Time{Sec: d.i64(), Nsec: d.u32()} }

// AppendInode appends the answer to OpInode to b.
func AppendInode(b []byte, n *disk.Inode) []byte {
	b = putU64(b, n.Ino)
	b = putU32(b, n.Generation)
	b = putU32(b, n.Mode)
	b = putU32(b, n.UID)
	b = putU32(b, n.GID)
	b = putU32(b, n.Links)
	b = putI64(b, n.Size)
	b = putU32(b, n.Rdev.Major)
	b = putU32(b, n.Rdev.Minor)
	b = putU32(b, uint32(n.Flags))
	for _, t := range []disk.Time{n.Access, n.Modify, n.Change, n.Birth} {
		b = putTime(b, t)
	}
	return b
}

// DecodeInode decodes the answer to OpInode about inode ino.
func DecodeInode(payload []byte, ino uint64) (disk.Inode, error) {
	d := decoder{buf: payload}
	n := d.inode(ino)
	return n, d.done()
}

func (d *decoder) inode(ino uint64) disk.Inode {
	n := disk.Inode{
		Ino: d.u64(), Generation: d.u32(), Mode: d.u32(),
		UID: d.u32(), GID: d.u32(), Links: d.u32(), Size: d.i64(),
		Rdev: disk.Device{Major: d.u32(), Minor: d.u32()}, Flags: disk.InodeFlags(d.u32()),
		Access: d.time(), Modify: d.time(), Change: d.time(), Birth: d.time(),
	}
	if d.err == nil {
		if err := CheckInode(&n, ino); err != nil {
			d.fail("%v", err)
		}
	}
	return n
}

// DecodeTarget decodes the answer to OpReadlink, which is the target alone.
func DecodeTarget(payload []byte) ([]byte, error) {
	if err := CheckTarget(payload); err != nil {
		return nil, broken("%v", err)
	}
	return payload, nil
}

const xattrSize = 4 + 4

// AppendXattrs appends the answer to OpXattrs to b.
func AppendXattrs(b []byte, list []disk.Xattr) []byte {
	b = putU32(b, uint32(len(list)))
	for _, x := range list {
		b = putBytes(putBytes(b, x.Name), x.Value)
	}
	return b
}

// DecodeXattrs decodes the answer to OpXattrs.
func DecodeXattrs(payload []byte) ([]disk.Xattr, error) {
	d := decoder{buf: payload}
	list := d.xattrs()
	return list, d.done()
}

func (d *decoder) xattrs() []disk.Xattr {
	n := d.count(MaxXattrs, xattrSize)
	if n == 0 {
		return nil
	}
	list := make([]disk.Xattr, 0, n)
	for range n {
		list = append(list, disk.Xattr{Name: d.bytes(MaxName), Value: d.bytes(MaxXattrValue)})
	}
	if d.err == nil {
		if err := CheckXattrs(list); err != nil {
			d.fail("%v", err)
		}
	}
	return list
}

// Entry is a name in a directory with all that the worker could tell about the
// file in passing. What it could not, or what is too long for a page, is nil;
// whoever wants it asks for it alone, and learns why.
type Entry struct {
	disk.DirEntry
	Inode  *disk.Inode
	Target []byte // of a symlink
	// Xattrs may be empty, if HasXattrs says that this is all.
	Xattrs    []disk.Xattr
	HasXattrs bool
}

// DirPage is the answer to [ReadDir]. Last says that the directory ends here.
type DirPage struct {
	Last    bool
	Entries []Entry
}

const (
	entrySize = 1 + 8 + 4 + 4

	entryInode  = 1
	entryTarget = 2
	entryXattrs = 4
)

// DirPageWriter builds a [DirPage] within a buffer.
type DirPageWriter struct {
	b     []byte
	start int
	count uint32
}

// NewDirPageWriter starts a page at the end of b.
func NewDirPageWriter(b []byte) *DirPageWriter {
	w := &DirPageWriter{start: len(b)}
	w.b = putU32(putBool(b, false), 0)
	return w
}

// Full reports whether the page is to be sent.
func (w *DirPageWriter) Full() bool { return len(w.b)-w.start >= DirPageSize }

// Add adds an entry.
func (w *DirPageWriter) Add(e *Entry) {
	var flags uint8
	if e.Inode != nil {
		flags |= entryInode
	}
	if e.Target != nil {
		flags |= entryTarget
	}
	if e.HasXattrs {
		flags |= entryXattrs
	}
	b := putU8(w.b, flags)
	b = putU64(b, e.Ino)
	b = putU32(b, e.Type)
	b = putBytes(b, e.Name)
	if e.Inode != nil {
		b = AppendInode(b, e.Inode)
	}
	if e.Target != nil {
		b = putBytes(b, e.Target)
	}
	if e.HasXattrs {
		b = AppendXattrs(b, e.Xattrs)
	}
	w.b = b
	w.count++
}

// Finish returns the buffer with the complete page.
func (w *DirPageWriter) Finish(last bool) []byte {
	putU32(putBool(w.b[:w.start], last), w.count)
	return w.b
}

// DecodeDirPage decodes a [DirPage], without copying names and values out of
// payload. That no name is there twice is for the reader of all pages to check.
func DecodeDirPage(payload []byte) (DirPage, error) {
	d := decoder{buf: payload}
	p := DirPage{Last: d.bool()}
	n := d.count(MaxAnswer/entrySize, entrySize)
	if n == 0 && !p.Last {
		d.fail("empty page, and more to come")
	}
	p.Entries = make([]Entry, 0, n)
	for range n {
		e := d.entry()
		if d.err != nil {
			break
		}
		p.Entries = append(p.Entries, e)
	}
	return p, d.done()
}

func (d *decoder) entry() Entry {
	var e Entry
	flags := d.u8()
	if flags&^(entryInode|entryTarget|entryXattrs) != 0 {
		d.fail("entry with flags %#x", flags)
	}
	e.Ino, e.Type, e.Name = d.u64(), d.u32(), d.bytes(MaxName)
	if d.err == nil {
		if err := CheckEntry(e.DirEntry); err != nil {
			d.fail("%v", err)
		}
	}
	if flags&entryInode != 0 {
		n := d.inode(e.Ino)
		e.Inode = &n
	}
	if flags&entryTarget != 0 {
		e.Target = d.bytes(MaxTarget)
		if err := CheckTarget(e.Target); d.err == nil && err != nil {
			d.fail("%v", err)
		}
	}
	if flags&entryXattrs != 0 {
		e.Xattrs, e.HasXattrs = d.xattrs(), true
	}
	return e
}
