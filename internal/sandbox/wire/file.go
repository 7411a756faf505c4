package wire

import "github.com/drydock-vm/drydock/disk"

const (
	timeSize  = 8 + 4
	inodeSize = 8 + 4 + 4*4 + 8 + 4 + 4 + 4 + 4 + 4*timeSize
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
	b = putU32(b, n.Subvolume)
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
		Rdev: disk.Device{Major: d.u32(), Minor: d.u32()}, Flags: disk.InodeFlags(d.u32()), Subvolume: d.u32(),
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
	// Pieces are all those of a regular file's content, or none.
	Pieces []Piece
	// Content is all of a regular file that has no hole and is not empty; or nil.
	Content []byte
}

// IsDir reports whether the entry is a directory, as far as is told.
func (e *Entry) IsDir() bool {
	if e.Inode != nil {
		return e.Inode.Type() == disk.ModeDir
	}
	return e.Type == disk.ModeDir
}

// DirPage is a part of a directory. Last says that the directory ends here.
type DirPage struct {
	Ino     uint64 // of the directory
	Last    bool
	Entries []Entry
}

const (
	entrySize = 1 + 8 + 4 + 4

	entryInode  = 1
	entryTarget = 2
	entryXattrs = 4
	entryPieces = 8

	entryContent = 16

	entryFlags = entryInode | entryTarget | entryXattrs | entryPieces | entryContent
)

// DirPagesWriter builds the answer to [ReadDir] within a buffer: a page of the
// directory that was asked for, and, if that is its last, whole directories
// below it.
type DirPagesWriter struct {
	b       []byte
	start   int    // of the answer
	page    int    // where the page that is being built starts
	pages   uint32 // those that are finished
	entries uint32 // of the page that is being built
	content int    // bytes of files
}

const dirPageSize = 8 + 1 + 4

// NewDirPagesWriter starts an answer at the end of b.
func NewDirPagesWriter(b []byte) *DirPagesWriter {
	return &DirPagesWriter{b: putU32(b, 0), start: len(b)}
}

// Full reports whether an answer of so many bytes, of which content are those of files,
// is to be sent.
func Full(size, content int) bool { return size-content >= DirPageSize || content >= ContentSize }

// Full reports whether the answer is to be sent.
func (w *DirPagesWriter) Full() bool {
	return Full(len(w.b)-w.start, w.content) || w.pages == MaxDirPages
}

// Begin starts a page of directory ino.
func (w *DirPagesWriter) Begin(ino uint64) {
	w.page, w.entries = len(w.b), 0
	w.b = putU32(putBool(putU64(w.b, ino), false), 0)
}

// End finishes the page.
func (w *DirPagesWriter) End(last bool) {
	putU32(putBool(w.b[:w.page+8], last), w.entries)
	w.pages++
}

// Abandon drops the page.
func (w *DirPagesWriter) Abandon() { w.b = w.b[:w.page] }

// Finish returns the buffer with the complete answer.
func (w *DirPagesWriter) Finish() []byte {
	putU32(w.b[:w.start], w.pages)
	return w.b
}

// Add adds an entry.
func (w *DirPagesWriter) Add(e *Entry) {
	b := putU8(w.b, e.flags())
	b = putU64(b, e.Ino)
	b = putU32(b, e.Type)
	b = putBytes(b, e.Name)
	w.b = appendTold(b, e)
	w.entries++
	w.content += len(e.Content)
}

// flags says what is told beside the name.
func (e *Entry) flags() (flags uint8) {
	if e.Inode != nil {
		flags |= entryInode
	}
	if e.Target != nil {
		flags |= entryTarget
	}
	if e.HasXattrs {
		flags |= entryXattrs
	}
	if len(e.Pieces) > 0 {
		flags |= entryPieces
	}
	if e.Content != nil {
		flags |= entryContent
	}
	return flags
}

// appendTold appends what the flags of e announce.
func appendTold(b []byte, e *Entry) []byte {
	if e.Inode != nil {
		b = AppendInode(b, e.Inode)
	}
	if e.Target != nil {
		b = putBytes(b, e.Target)
	}
	if e.HasXattrs {
		b = AppendXattrs(b, e.Xattrs)
	}
	if len(e.Pieces) > 0 {
		b = AppendPieces(b, e.Pieces)
	}
	if e.Content != nil {
		b = putBytes(b, e.Content)
	}
	return b
}

// DecodeDirPages decodes the answer to r, without copying names and values out of
// payload: at least one page, the first of the directory that was asked for. The
// others are whole directories. That no name is there twice is for the reader of
// all pages to check. files has the sizes of
// the files that pieces may lie in.
func DecodeDirPages(payload []byte, r ReadDir, files []int64) ([]DirPage, error) {
	d := decoder{buf: payload, contents: r.Contents}
	n := d.count(MaxDirPages, dirPageSize)
	if n == 0 || (n > 1 && r.Walk == NoWalk) {
		d.fail("%d pages", n)
		return nil, d.err
	}
	pages := make([]DirPage, 0, n)
	seen := make(map[uint64]bool, n)
	for i := range n {
		p := d.dirPage(files)
		switch {
		case i == 0 && p.Ino != r.Ino:
			d.fail("asked for directory %d, got %d", r.Ino, p.Ino)
		case n > 1 && !p.Last:
			d.fail("a part of directory %d among others", p.Ino)
		case seen[p.Ino]:
			d.fail("directory %d twice", p.Ino)
		}
		if d.err != nil {
			return nil, d.err
		}
		seen[p.Ino] = true
		pages = append(pages, p)
	}
	return pages, d.done()
}

func (d *decoder) dirPage(files []int64) DirPage {
	p := DirPage{Ino: d.u64(), Last: d.bool()}
	n := d.count(MaxAnswer/entrySize, entrySize)
	if n == 0 && !p.Last {
		d.fail("empty page, and more to come")
	}
	p.Entries = make([]Entry, 0, n)
	for range n {
		e := d.entry(files)
		if d.err != nil {
			break
		}
		p.Entries = append(p.Entries, e)
	}
	return p
}

func (d *decoder) entry(files []int64) Entry {
	var e Entry
	flags := d.flags()
	e.Ino, e.Type, e.Name = d.u64(), d.u32(), d.bytes(MaxName)
	if d.err == nil {
		if err := CheckEntry(e.DirEntry); err != nil {
			d.fail("%v", err)
		}
	}
	d.told(&e, flags, files)
	return e
}

func (d *decoder) flags() uint8 {
	flags := d.u8()
	if flags&^entryFlags != 0 {
		d.fail("entry with flags %#x", flags)
	}
	return flags
}

// told decodes what is told of e beside its name.
func (d *decoder) told(e *Entry, flags uint8, files []int64) {
	if flags&entryInode != 0 {
		e.Inode = d.newInode()
		*e.Inode = d.inode(e.Ino)
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
	if flags&entryPieces != 0 {
		e.Pieces = d.wholeFile(e.Inode, files)
	}
	if flags&entryContent != 0 {
		e.Content = d.content(e)
	}
}

// content decodes the content of a file.
func (d *decoder) content(e *Entry) []byte {
	b := d.bytes(MaxInlineContent)
	switch n := e.Inode; {
	case d.err != nil:
	case !d.contents:
		d.fail("content that was not asked for")
	case n == nil || n.Type() != disk.ModeRegular || e.Pieces != nil:
		d.fail("content of what has none, or has it elsewhere")
	case len(b) == 0 || int64(len(b)) != n.Size:
		d.fail("inode %d has %d bytes of content, its size is %d", n.Ino, len(b), n.Size)
	}
	return b
}

// wholeFile decodes all pieces of a file's content.
func (d *decoder) wholeFile(n *disk.Inode, files []int64) []Piece {
	if n == nil || n.Type() != disk.ModeRegular {
		d.fail("pieces of what has no content")
		return nil
	}
	list := d.pieces(MaxInlinePieces, 0, n.Size, files)
	if len(list) == 0 || list[len(list)-1].Offset+list[len(list)-1].Length != n.Size {
		d.fail("the pieces of inode %d are not all of it", n.Ino)
	}
	return list
}
