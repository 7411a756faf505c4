package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// checkLimit checks what comes of as many as there may be, which may be damaged for
// another reason, and of one more.
func checkLimit(t *testing.T, what string, within, beyond error) {
	t.Helper()
	if errors.Is(within, disk.ErrLimit) {
		t.Errorf("%s, as many as there may be: %v", what, within)
	}
	if !errors.Is(beyond, disk.ErrLimit) {
		t.Errorf("%s, one too many: %v", what, beyond)
	}
}

func openPlain(t *testing.T) *Filesystem {
	t.Helper()
	fs, err := Open(disktest.LoadSeed(t, "plain"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// TestFastCommitLimits has as many changes in fast commits, and as many bytes of the
// directories that they change, as there may be, and one more.
func TestFastCommitLimits(t *testing.T) {
	fs := openPlain(t)
	link := binary.LittleEndian.AppendUint16(nil, tagLink)
	link = append(binary.LittleEndian.AppendUint16(link, 9), "12345678n"...)
	tags := func(n int) error {
		s := &fastScanner{journal: &journal{fs: fs}, tags: make([]fastTag, n)}
		more, err := s.block(link, 0)
		if more != (err == nil) || more && len(s.tags) != n+1 {
			t.Errorf("%d changes: %v, %v", len(s.tags), more, err)
		}
		return err
	}
	checkLimit(t, "changes", tags(maxFastCommitTags-1), tags(maxFastCommitTags))

	scan := func(size int64) error {
		n := &inode{Inode: disk.Inode{Ino: 12, Mode: disk.ModeDir, Size: size}}
		fs.last.Store(n)
		a := &fastApplier{fs: fs, changes: &changes{dirs: map[uint64]*changedDir{12: {}}}}
		return a.scanDirs()
	}
	checkLimit(t, "bytes of directories", scan(maxFastCommitScan), scan(maxFastCommitScan+1))
}

// TestDirectoryLimit has a directory as large as is read, and one of a block more.
func TestDirectoryLimit(t *testing.T) {
	fs := openPlain(t)
	read := func(size int64) error {
		r := &dirReader{fs: fs, dir: &inode{Inode: disk.Inode{Ino: 12, Mode: disk.ModeDir, Size: size}}}
		return r.readBlocks()
	}
	checkLimit(t, "bytes of a directory", read(maxDirSize), read(maxDirSize+fs.sb.blockSize()))
}

// TestXattrLimit has as many bytes in the values of one inode as are read, and one more.
func TestXattrLimit(t *testing.T) {
	fs := openPlain(t)
	expand := func(size int) error {
		var entries []xattrEntry
		for i := 0; size > 0; i++ {
			e := xattrEntry{index: 1, name: fmt.Appendf(nil, "%d", i), value: make([]byte, min(size, maxXattrValue))}
			e.size = uint32(len(e.value))
			entries = append(entries, e)
			size -= len(e.value)
		}
		list, err := fs.expand(&inode{}, entries)
		if err == nil && len(list) != len(entries) {
			t.Errorf("%d of %d attributes", len(list), len(entries))
		}
		return err
	}
	checkLimit(t, "bytes of values", expand(maxXattrTotal), expand(maxXattrTotal+1))
}

// TestBitmapLimit has as many groups as are looked at for what is in use, and one more.
func TestBitmapLimit(t *testing.T) {
	fs := openPlain(t)
	used := func(groups uint64) error {
		sb := *fs.sb
		sb.state = 0 // which is refused as well, and at once
		sb.blockCount = sb.firstBlock + groups*sb.groupBlocks
		return (&Filesystem{sb: &sb, dev: fs.dev}).Used(0, nil)
	}
	limit := uint64(maxBitmaps) >> fs.sb.blockShift
	checkLimit(t, "groups", used(limit), used(limit+1))
}
