package wire

import (
	"encoding/binary"
	"syscall"

	"github.com/drydock-vm/drydock/disk"
)

// File is a file of any type, as [Node] has it.
type File struct {
	disk.Inode
	Name   []byte // in its folder; of the root directory it is empty
	Target []byte // of a symlink
	Xattrs []disk.Xattr
}

// fixed is the part of an encoded File that always has one size.
type fixed struct {
	Ino, Size              uint64
	Mode, UID, GID, Links  uint32
	Major, Minor, Flags    uint32
	Subvolume              uint32
	ModifyNsec, AccessNsec uint32
	ModifySec, AccessSec   int64
}

// AppendFile encodes f.
func AppendFile(b []byte, f *File) []byte {
	b, _ = binary.Append(b, binary.LittleEndian, &fixed{
		Ino: f.Ino, Size: uint64(f.Size), Mode: f.Mode, UID: f.UID, GID: f.GID, Links: f.Links,
		Major: f.Rdev.Major, Minor: f.Rdev.Minor, Flags: uint32(f.Flags), Subvolume: f.Subvolume,
		ModifySec: f.Modify.Sec, ModifyNsec: f.Modify.Nsec, AccessSec: f.Access.Sec, AccessNsec: f.Access.Nsec,
	}) // it fails only for types that have no size
	b = appendRun(appendRun(b, f.Name), f.Target)
	for _, x := range f.Xattrs {
		b = appendRun(appendRun(b, x.Name), x.Value)
	}
	return b
}

// DecodeFile decodes a File. What it holds is part of payload.
func DecodeFile(payload []byte) (*File, error) {
	var x fixed
	n, err := binary.Decode(payload, binary.LittleEndian, &x)
	if err != nil {
		return nil, broken("a file in %d bytes", len(payload))
	}
	f := &File{Inode: disk.Inode{
		Ino: x.Ino, Size: int64(x.Size), Mode: x.Mode, UID: x.UID, GID: x.GID, Links: x.Links,
		Rdev: disk.Device{Major: x.Major, Minor: x.Minor}, Flags: disk.InodeFlags(x.Flags), Subvolume: x.Subvolume,
		Modify: disk.Time{Sec: x.ModifySec, Nsec: x.ModifyNsec}, Access: disk.Time{Sec: x.AccessSec, Nsec: x.AccessNsec},
	}}
	if f.Size < 0 {
		return nil, broken("a file of %d bytes", f.Size)
	}
	d := decoder{rest: payload[n:]}
	f.Name, f.Target = d.run(), d.run()
	for len(d.rest) > 0 && d.err == nil {
		f.Xattrs = append(f.Xattrs, disk.Xattr{Name: d.run(), Value: d.run()})
	}
	return f, d.err
}

// Complaint is what a guest says of a file, or of its whole work.
type Complaint struct {
	Errno syscall.Errno // 0 if it is of another kind
	Path  []byte        // empty if it is of no file, or of the root directory
	Text  string        // hostile, as all that a guest says
}

// AppendComplaint encodes c. What is too long is cut.
func AppendComplaint(b []byte, c *Complaint) []byte {
	const maxText = 4 << 10
	path, text := c.Path, []byte(c.Text)
	path, text = path[:min(len(path), MaxToHost/2)], text[:min(len(text), maxText)]
	return appendRun(appendRun(AppendNumber(b, uint64(c.Errno)), path), text)
}

// DecodeComplaint decodes a Complaint.
func DecodeComplaint(payload []byte) (*Complaint, error) {
	n, rest, err := Number(payload)
	if err != nil {
		return nil, err
	}
	d := decoder{rest: rest}
	c := &Complaint{Errno: syscall.Errno(n), Path: d.run(), Text: string(d.run())}
	return c, d.err
}

// appendRun writes a length of 32 bits, and p.
func appendRun(b, p []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(p))), p...)
}

// decoder takes runs of bytes. The first failure sticks.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) run() []byte {
	const size = 4
	if d.err != nil {
		return nil
	}
	if len(d.rest) < size {
		d.err = broken("it ends in a length")
		return nil
	}
	n := binary.LittleEndian.Uint32(d.rest)
	d.rest = d.rest[size:]
	if uint64(n) > uint64(len(d.rest)) {
		d.err = broken("%d bytes, and %d are there", n, len(d.rest))
		return nil
	}
	p := d.rest[:n:n]
	d.rest = d.rest[n:]
	return p
}
