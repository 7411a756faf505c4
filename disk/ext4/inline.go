package ext4

import (
	"io"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// inlineData returns what n keeps in the inode instead of blocks: i_block, and
// behind it the value of the attribute system.data.
// (Documentation/filesystems/ext4/inlinedata.rst)
func (fs *Filesystem) inlineData(n *inode) ([]byte, error) {
	if fs.sb.incompat&incompatInlineData == 0 {
		return nil, layer.Damaged(inodeName(n.Ino), ondisk.Nowhere, "inline data, without the feature inline_data")
	}
	data := append([]byte(nil), n.block[:]...)
	entries, err := fs.bodyXattrs(n)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.isInlineData() {
			return append(data, e.value...), nil
		}
	}
	return nil, layer.Damaged(inodeName(n.Ino), ondisk.Nowhere, "inline data, without the attribute system.data")
}

// inlineFile is content that lies in the inode. It reads as zeros behind what
// was ever written, if the file was extended by truncate(2).
type inlineFile struct {
	data []byte // at most size
	size int64
}

func (f *inlineFile) Size() int64 { return f.size }

// ReadAt implements [disk.Sparse].
func (f *inlineFile) ReadAt(p []byte, off int64) (int, error) {
	if err := ondisk.CheckOffset(off); err != nil {
		return 0, err
	}
	if off >= f.size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), f.size-off)]
	copied := 0
	if off < int64(len(f.data)) {
		copied = copy(want, f.data[off:])
	}
	clear(want[copied:])
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}

// Extents implements [disk.Sparse].
func (f *inlineFile) Extents(off, length int64, yield func(disk.Extent) error) error {
	if err := ondisk.CheckRange(off, length, f.size); err != nil {
		return err
	}
	end, data := off+length, int64(len(f.data))
	if off < data && length > 0 {
		n := min(end, data) - off
		if err := yield(disk.Extent{Offset: off, Length: n, Kind: disk.ExtentData}); err != nil {
			return err
		}
		off += n
	}
	if off < end {
		return yield(disk.Extent{Offset: off, Length: end - off, Kind: disk.ExtentHole})
	}
	return nil
}
