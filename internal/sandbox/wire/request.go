package wire

// Setup tells a new worker what it is given and what it may use. It is the only
// request that is served before the worker confines itself; it holds nothing
// that a guest wrote. The answer is a list of [Measure].
type Setup struct {
	Disks  uint8 // descriptors 4, 5, … are images
	Memory int64 // bytes
	// Namespaces says that the parent made the worker's namespaces.
	Namespaces bool
}

// Append appends the encoded request to b.
func (r Setup) Append(b []byte) []byte {
	return putBool(putI64(putU8(b, r.Disks), r.Memory), r.Namespaces)
}

// DecodeSetup decodes a [Setup].
func DecodeSetup(payload []byte) (Setup, error) {
	d := decoder{buf: payload}
	r := Setup{Disks: d.u8(), Memory: d.i64(), Namespaces: d.bool()}
	if r.Disks > MaxImages {
		d.fail("%d disks", r.Disks)
	}
	if r.Memory <= 0 {
		d.fail("memory of %d bytes", r.Memory)
	}
	return r, d.done()
}

// Format is the format of an image.
type Format uint8

// The formats.
const (
	FormatRaw Format = iota + 1
	FormatQcow2
)

// Image is one file of a disk's backing chain.
type Image struct {
	Format   Format
	Size     int64  // of the file, in bytes
	Snapshot string // of qcow2, "" for the active state
}

// Open opens the disk whose images, topmost first, are the descriptors that the
// worker was given. The answer is an [Opened].
type Open struct {
	Images     []Image
	SectorSize uint16 // 512 or 4096
}

const imageSize = 1 + 8 + 4

// Append appends the encoded request to b.
func (r Open) Append(b []byte) []byte {
	b = putU16(b, r.SectorSize)
	b = putU32(b, uint32(len(r.Images)))
	for _, m := range r.Images {
		b = putU8(b, uint8(m.Format))
		b = putI64(b, m.Size)
		b = putString(b, m.Snapshot)
	}
	return b
}

// DecodeOpen decodes an [Open].
func DecodeOpen(payload []byte) (Open, error) {
	d := decoder{buf: payload}
	r := Open{SectorSize: d.u16()}
	if r.SectorSize != 512 && r.SectorSize != 4096 {
		d.fail("sector size %d", r.SectorSize)
	}
	n := d.count(MaxImages, imageSize)
	if n == 0 {
		d.fail("no image")
	}
	for range n {
		m := Image{Format: Format(d.u8()), Size: d.i64(), Snapshot: d.string(MaxSnapshotName)}
		if m.Format != FormatRaw && m.Format != FormatQcow2 {
			d.fail("format %d", m.Format)
		}
		if m.Size < 0 {
			d.fail("image of %d bytes", m.Size)
		}
		r.Images = append(r.Images, m)
	}
	return r, d.done()
}

// Snapshots asks for the qcow2 snapshots after the first Skip. The answer is a
// [SnapshotPage].
type Snapshots struct{ Skip uint32 }

// Append appends the encoded request to b.
func (r Snapshots) Append(b []byte) []byte { return putU32(b, r.Skip) }

// DecodeSnapshots decodes a [Snapshots].
func DecodeSnapshots(payload []byte) (Snapshots, error) {
	d := decoder{buf: payload}
	r := Snapshots{Skip: d.u32()}
	return r, d.done()
}

// Mount opens the filesystem in a volume; the requests about its files name it
// by the same number. The answer is an encoded disk.FilesystemInfo.
type Mount struct{ Volume uint32 }

// Append appends the encoded request to b.
func (r Mount) Append(b []byte) []byte { return putU32(b, r.Volume) }

// DecodeMount decodes a [Mount].
func DecodeMount(payload []byte) (Mount, error) {
	d := decoder{buf: payload}
	r := Mount{Volume: d.u32()}
	return r, d.done()
}

// Node names a file: the payload of OpInode, OpReadlink and OpXattrs.
type Node struct {
	Volume uint32
	Ino    uint64
}

// Append appends the encoded request to b.
func (r Node) Append(b []byte) []byte { return putU64(putU32(b, r.Volume), r.Ino) }

// DecodeNode decodes a [Node].
func DecodeNode(payload []byte) (Node, error) {
	d := decoder{buf: payload}
	r := Node{Volume: d.u32(), Ino: d.u64()}
	return r, d.done()
}

// Walk says whether a [ReadDir] is part of a walk through a tree, so that what
// comes next is worth telling too, and in which order that is.
type Walk uint8

// The kinds of walk.
const (
	NoWalk Walk = iota
	WalkDisk
	WalkNames
)

// ReadDir asks for a page of directory Ino, from the entry after the first Skip
// on. The answer is a [DirPages]. On a walk, Then names directories that are
// expected to be listed after Ino and all below it.
type ReadDir struct {
	Node
	Skip uint64
	Walk Walk
	Then []uint64
}

// Append appends the encoded request to b.
func (r ReadDir) Append(b []byte) []byte {
	b = putU8(putU64(r.Node.Append(b), r.Skip), uint8(r.Walk))
	b = putU32(b, uint32(len(r.Then)))
	for _, ino := range r.Then {
		b = putU64(b, ino)
	}
	return b
}

// DecodeReadDir decodes a [ReadDir].
func DecodeReadDir(payload []byte) (ReadDir, error) {
	d := decoder{buf: payload}
	r := ReadDir{Node: Node{Volume: d.u32(), Ino: d.u64()}, Skip: d.u64(), Walk: Walk(d.u8())}
	for range d.count(MaxThen, 8) {
		r.Then = append(r.Then, d.u64())
	}
	if r.Walk > WalkNames || (r.Walk == NoWalk && r.Then != nil) {
		d.fail("walk of kind %d", r.Walk)
	}
	return r, d.done()
}

// ObjectKind says what an [Object] is.
type ObjectKind uint8

// The kinds of object.
const (
	ObjectVolume ObjectKind = iota + 1 // 0 is the whole disk
	ObjectFile
)

// Object names a run of bytes to be read.
type Object struct {
	Kind ObjectKind
	Node // Ino is 0 for a volume
}

func (r Object) append(b []byte) []byte { return r.Node.Append(putU8(b, uint8(r.Kind))) }

func (d *decoder) object() Object {
	r := Object{Kind: ObjectKind(d.u8()), Node: Node{Volume: d.u32(), Ino: d.u64()}}
	if r.Kind != ObjectVolume && r.Kind != ObjectFile {
		d.fail("object of kind %d", r.Kind)
	}
	if r.Kind == ObjectVolume && r.Ino != 0 {
		d.fail("volume with an inode")
	}
	return r
}

// Read asks for exactly Length bytes of an object. They are the answer if Slot
// is 0; otherwise they are in the slot of that number, from 1 on, and the answer
// is empty.
type Read struct {
	Object
	Off    int64
	Length uint32 // 1 to MaxData, or to InlineData without a slot
	Slot   uint8
}

// Append appends the encoded request to b.
func (r Read) Append(b []byte) []byte {
	return putU8(putU32(putI64(r.Object.append(b), r.Off), r.Length), r.Slot)
}

// DecodeRead decodes a [Read].
func DecodeRead(payload []byte) (Read, error) {
	d := decoder{buf: payload}
	r := Read{Object: d.object(), Off: d.i64(), Length: d.u32(), Slot: d.u8()}
	if r.Off < 0 || r.Length == 0 || r.Length > MaxData || (r.Slot == 0 && r.Length > InlineData) || r.Slot > Slots {
		d.fail("read of %d bytes at %d to slot %d", r.Length, r.Off, r.Slot)
	}
	return r, d.done()
}

// Extents asks for the extents of a range of an object. The answer lists those
// of a beginning of the range: see [DecodeExtents]. Who wants the rest asks
// again.
type Extents struct {
	Object
	Off, Length int64 // Length at least 1
}

// Append appends the encoded request to b.
func (r Extents) Append(b []byte) []byte {
	return putI64(putI64(r.Object.append(b), r.Off), r.Length)
}

// DecodeExtentsRequest decodes an [Extents].
func DecodeExtentsRequest(payload []byte) (Extents, error) {
	d := decoder{buf: payload}
	r := Extents{Object: d.object(), Off: d.i64(), Length: d.i64()}
	if r.Off < 0 || r.Length <= 0 || r.Off+r.Length < 0 {
		d.fail("extents of %d bytes at %d", r.Length, r.Off)
	}
	return r, d.done()
}

// SmallFile is a file of which the whole content is asked for.
type SmallFile struct {
	Ino  uint64
	Size uint32 // as its inode says: 1 to MaxData
}

const smallFileSize = 8 + 4

// ReadMany asks for the whole content of small files, at most MaxData bytes
// together, one after the other in a slot. The answer has one item for each, in
// order: see [DecodeMany].
type ReadMany struct {
	Volume uint32
	Slot   uint8 // from 1 on
	Files  []SmallFile
}

// Size is the size of all files together, in bytes.
func (r *ReadMany) Size() int {
	n := 0
	for _, f := range r.Files {
		n += int(f.Size)
	}
	return n
}

// Append appends the encoded request to b.
func (r ReadMany) Append(b []byte) []byte {
	b = putU8(putU32(b, r.Volume), r.Slot)
	b = putU32(b, uint32(len(r.Files)))
	for _, f := range r.Files {
		b = putU32(putU64(b, f.Ino), f.Size)
	}
	return b
}

// DecodeReadMany decodes a [ReadMany].
func DecodeReadMany(payload []byte) (ReadMany, error) {
	d := decoder{buf: payload}
	r := ReadMany{Volume: d.u32(), Slot: d.u8()}
	if r.Slot == 0 || r.Slot > Slots {
		d.fail("slot %d", r.Slot)
	}
	for range d.count(MaxMany, smallFileSize) {
		f := SmallFile{Ino: d.u64(), Size: d.u32()}
		if f.Size == 0 || f.Size > MaxData {
			d.fail("small file of %d bytes", f.Size)
		}
		r.Files = append(r.Files, f)
	}
	if n := r.Size(); n == 0 || n > MaxData {
		d.fail("%d files of %d bytes together", len(r.Files), n)
	}
	return r, d.done()
}
