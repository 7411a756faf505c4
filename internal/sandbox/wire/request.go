package wire

// Setup tells a new worker what it is given and what it may use. It is the only
// request that is served before the worker confines itself; it holds nothing
// that a guest wrote. The answer is a list of [Measure].
type Setup struct {
	Files  uint8 // how many descriptors are images of disks
	Memory int64 // bytes
	// Namespaces says that the parent made the worker's namespaces.
	Namespaces bool
	// Served says that behind the images there is a socket, for [Fetch].
	Served bool
}

// Append appends the encoded request to b.
func (r Setup) Append(b []byte) []byte {
	return putBool(putBool(putI64(putU8(b, r.Files), r.Memory), r.Namespaces), r.Served)
}

// DecodeSetup decodes a [Setup].
func DecodeSetup(payload []byte) (Setup, error) {
	d := decoder{buf: payload}
	r := Setup{Files: d.u8(), Memory: d.i64(), Namespaces: d.bool(), Served: d.bool()}
	if r.Files > MaxFiles {
		d.fail("%d files", r.Files)
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

// Image is one image of a disk's backing chain. Its file is the next of the
// descriptors that the worker was given, unless it is served; the file that holds
// its data, if that is another one, comes behind it.
type Image struct {
	Format   Format
	Size     int64  // of the file, in bytes
	Snapshot string // of qcow2, "" for the active state
	// DataSize is the size of an external data file; -1: there is none.
	DataSize int64
	// Served says that the image has no descriptor: the worker asks for its bytes.
	Served bool
}

// Files is how many files the image has.
func (m *Image) Files() int {
	if m.DataSize >= 0 {
		return 2
	}
	return 1
}

// Disk is a disk of a VM: its images, topmost first.
type Disk struct {
	Name       string
	SectorSize uint16 // 512 or 4096
	Images     []Image
}

// Open opens all disks of a VM. The answer is an [Opened].
type Open struct{ Disks []Disk }

const (
	imageSize = 1 + 8 + 4 + 8 + 1
	diskSize  = 4 + 2 + 4
)

// Append appends the encoded request to b.
func (r Open) Append(b []byte) []byte {
	b = putU32(b, uint32(len(r.Disks)))
	for _, k := range r.Disks {
		b = putU16(putString(b, k.Name), k.SectorSize)
		b = putU32(b, uint32(len(k.Images)))
		for _, m := range k.Images {
			b = putI64(putU8(b, uint8(m.Format)), m.Size)
			b = putBool(putI64(putString(b, m.Snapshot), m.DataSize), m.Served)
		}
	}
	return b
}

// DecodeOpen decodes an [Open].
func DecodeOpen(payload []byte) (Open, error) {
	d := decoder{buf: payload}
	var r Open
	files := 0
	n := d.count(MaxDisks, diskSize)
	if n == 0 {
		d.fail("no disk")
	}
	for range n {
		k := Disk{Name: d.string(maxText), SectorSize: d.u16()}
		if k.SectorSize != 512 && k.SectorSize != 4096 {
			d.fail("sector size %d", k.SectorSize)
		}
		images := d.count(MaxImages, imageSize)
		if images == 0 {
			d.fail("no image")
		}
		for range images {
			m := d.image()
			files += m.Files()
			k.Images = append(k.Images, m)
		}
		r.Disks = append(r.Disks, k)
	}
	if files > MaxFiles {
		d.fail("%d files", files)
	}
	return r, d.done()
}

func (d *decoder) image() Image {
	m := Image{Format: Format(d.u8()), Size: d.i64(), Snapshot: d.string(MaxSnapshotName), DataSize: d.i64(), Served: d.bool()}
	if m.Format != FormatRaw && m.Format != FormatQcow2 {
		d.fail("format %d", m.Format)
	}
	if m.Size < 0 || m.DataSize < -1 {
		d.fail("image of %d bytes, data file of %d", m.Size, m.DataSize)
	}
	return m
}

// List asks for a page of a list about disk or tree Number: the items after the
// first Skip. It is the payload of OpSnapshots, whose answer is a [SnapshotPage],
// of OpBitmaps ([BitmapPage]), of OpVolumes ([VolumePage], Number is 0), and of OpSubvolumes
// ([SubvolumePage]).
type List struct{ Number, Skip uint32 }

// Append appends the encoded request to b.
func (r List) Append(b []byte) []byte { return putU32(putU32(b, r.Number), r.Skip) }

// DecodeList decodes a [List].
func DecodeList(payload []byte) (List, error) {
	d := decoder{buf: payload}
	r := List{Number: d.u32(), Skip: d.u32()}
	return r, d.done()
}

// Mount opens the filesystem in a volume. Requests about its files name it as
// their tree, by the volume's number. The answer is an encoded
// disk.FilesystemInfo.
type Mount struct{ Volume uint32 }

// Append appends the encoded request to b.
func (r Mount) Append(b []byte) []byte { return putU32(b, r.Volume) }

// DecodeMount decodes a [Mount].
func DecodeMount(payload []byte) (Mount, error) {
	d := decoder{buf: payload}
	r := Mount{Volume: d.u32()}
	return r, d.done()
}

// GuestTree is the number of the tree that [Guest] opens.
const GuestTree = 1 << 31

// Guest opens the tree that the guest itself sees, put together from its
// filesystems. Root names the volume of its root filesystem, or is empty. The
// answer is a [GuestInfo].
type Guest struct{ Root string }

// Append appends the encoded request to b.
func (r Guest) Append(b []byte) []byte { return putString(b, r.Root) }

// DecodeGuest decodes a [Guest].
func DecodeGuest(payload []byte) (Guest, error) {
	d := decoder{buf: payload}
	r := Guest{Root: d.string(maxText)}
	return r, d.done()
}

// Node names a file: the payload of OpInode, OpReadlink and OpXattrs.
type Node struct {
	Tree uint32
	Ino  uint64
}

// Append appends the encoded request to b.
func (r Node) Append(b []byte) []byte { return putU64(putU32(b, r.Tree), r.Ino) }

// DecodeNode decodes a [Node].
func DecodeNode(payload []byte) (Node, error) {
	d := decoder{buf: payload}
	r := Node{Tree: d.u32(), Ino: d.u64()}
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
// on. The answer is a [DirPages]. With Names, nothing is told of its entries beside
// their names: of a large directory that is faster, and who wants the rest asks for
// it with [Describe]. With Contents, the content of files that have it within the
// metadata is told, too. On a walk, Then names directories that are expected to be
// listed after Ino and all below it.
type ReadDir struct {
	Node
	Skip     uint64
	Names    bool
	Contents bool
	Walk     Walk
	Then     []uint64
}

// Append appends the encoded request to b.
func (r ReadDir) Append(b []byte) []byte {
	b = putBool(putBool(putU64(r.Node.Append(b), r.Skip), r.Names), r.Contents)
	b = putU8(b, uint8(r.Walk))
	b = putU32(b, uint32(len(r.Then)))
	for _, ino := range r.Then {
		b = putU64(b, ino)
	}
	return b
}

// DecodeReadDir decodes a [ReadDir].
func DecodeReadDir(payload []byte) (ReadDir, error) {
	d := decoder{buf: payload}
	r := ReadDir{Node: Node{Tree: d.u32(), Ino: d.u64()}, Skip: d.u64(), Names: d.bool(), Contents: d.bool(), Walk: Walk(d.u8())}
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
	ObjectDisk ObjectKind = iota + 1
	ObjectVolume
	ObjectFile
)

// Object names a run of bytes to be read: a disk or a volume, whose number is
// Tree, or a file.
type Object struct {
	Kind ObjectKind
	Node // Ino is 0 for a disk and a volume
}

func (r Object) append(b []byte) []byte { return r.Node.Append(putU8(b, uint8(r.Kind))) }

func (d *decoder) object() Object {
	r := Object{Kind: ObjectKind(d.u8()), Node: Node{Tree: d.u32(), Ino: d.u64()}}
	if r.Kind < ObjectDisk || r.Kind > ObjectFile {
		d.fail("object of kind %d", r.Kind)
	}
	if r.Kind != ObjectFile && r.Ino != 0 {
		d.fail("object of kind %d with an inode", r.Kind)
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

// Pieces asks for the pieces of a range of an object. The answer lists those of
// a beginning of the range: see [DecodePieces]. Who wants the rest asks again.
type Pieces struct {
	Object
	Off, Length int64 // Length at least 1
}

// Append appends the encoded request to b.
func (r Pieces) Append(b []byte) []byte {
	return putI64(putI64(r.Object.append(b), r.Off), r.Length)
}

// DecodePiecesRequest decodes a [Pieces].
func DecodePiecesRequest(payload []byte) (Pieces, error) {
	d := decoder{buf: payload}
	r := Pieces{Object: d.object(), Off: d.i64(), Length: d.i64()}
	if r.Off < 0 || r.Length <= 0 || r.Off+r.Length < 0 {
		d.fail("pieces of %d bytes at %d", r.Length, r.Off)
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
	Tree  uint32
	Slot  uint8 // from 1 on
	Files []SmallFile
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
	b = putU8(putU32(b, r.Tree), r.Slot)
	b = putU32(b, uint32(len(r.Files)))
	for _, f := range r.Files {
		b = putU32(putU64(b, f.Ino), f.Size)
	}
	return b
}

// DecodeReadMany decodes a [ReadMany].
func DecodeReadMany(payload []byte) (ReadMany, error) {
	d := decoder{buf: payload}
	r := ReadMany{Tree: d.u32(), Slot: d.u8()}
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
