package btrfs

import (
	"errors"
	"fmt"
	"sync"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

const (
	// windowBytes is for how much content the checksums are looked up at once:
	// 1024 of them with sectors of 4 KiB.
	windowBytes = 4 << 20

	// maxDirectRead is how much is read and verified in one go.
	maxDirectRead = 1 << 20

	// bounceSize is the room for what does not start or end with a sector.
	bounceSize = 128 << 10
)

var bounceBuffers = sync.Pool{New: func() any { return new([bounceSize]byte) }}

// sumWindow is the checksums of a range of logical addresses.
type sumWindow struct {
	first, end uint64
	sums       []byte
}

// readPlain reads from an extent that is on disk as it is, at least one byte. p
// does not reach beyond the extent.
func (f *file) readPlain(p []byte, e *extent, off int64) (int, error) {
	logical := e.logical + e.offset + uint64(off-e.start)
	sector := uint64(f.fs.sb.sectorSize)
	p = p[:min(len(p), maxDirectRead)]
	if f.inode.flags&flagNoDataSum != 0 {
		return len(p), f.readChecked(p, logical, e)
	}
	head := logical % sector
	if whole := uint64(len(p)) &^ (sector - 1); head == 0 && whole > 0 && (whole == uint64(len(p)) || len(p) > bounceSize) {
		return int(whole), f.readChecked(p[:whole], logical, e)
	}
	// The extent ends with a sector, so that rounding up stays within.
	buf := bounceBuffers.Get().(*[bounceSize]byte)
	defer bounceBuffers.Put(buf)
	whole := min((head+uint64(len(p))+sector-1)&^(sector-1), bounceSize)
	if err := f.readChecked(buf[:whole], logical-head, e); err != nil {
		return 0, err
	}
	return copy(p, buf[head:whole]), nil
}

// readChecked fills p from a logical address in an extent. Where the file has
// checksums these are whole sectors.
func (f *file) readChecked(p []byte, logical uint64, e *extent) error {
	var sums []byte
	if f.inode.flags&flagNoDataSum == 0 {
		var err error
		if sums, err = f.checksums(logical, uint64(len(p)), e); err != nil {
			return err
		}
	}
	return f.readData(p, logical, sums, e)
}

// where is the byte of the file that has a logical address in an extent; of what is
// compressed, the first of all that is lost with it.
func (e *extent) where(logical uint64) int64 {
	if e.compression != 0 {
		return e.start
	}
	return e.start + int64(logical-e.logical-e.offset)
}

// checksums returns those of a range, and keeps those of what follows it.
func (f *file) checksums(logical, length uint64, e *extent) ([]byte, error) {
	sector, size := uint64(f.fs.sb.sectorSize), uint64(f.fs.sb.checksum.size)
	w := f.sums.Load()
	if w == nil || logical < w.first || logical+length > w.end {
		most := max(length, min(e.logical+e.length-logical, windowBytes))
		sums, err := f.fs.lookUpSums(logical, most)
		if err != nil {
			return nil, err
		}
		w = &sumWindow{first: logical, end: logical + uint64(len(sums))/size*sector, sums: sums}
		if logical+length > w.end {
			return nil, layer.Damaged(f.name(), offsetOf(w.end), "there is no checksum for address %#x, byte %d of the file", w.end, e.where(w.end))
		}
		f.sums.Store(w)
	}
	at := (logical - w.first) / sector * size
	return w.sums[at : at+length/sector*size], nil
}

// readData fills p from a logical address in an extent, from the first copy that is
// right. With sums, p is whole sectors.
func (f *file) readData(p []byte, logical uint64, sums []byte, e *extent) error {
	fs := f.fs
	// Old versions of btrfs-convert have left content in chunks for metadata.
	c := fs.chunks.find(logical, uint64(len(p)))
	if c == nil {
		return layer.Damaged(f.name(), offsetOf(logical), "%d bytes at address %#x are in no chunk", len(p), logical)
	}
	var first error
	for copy := range c.copies {
		err := fs.readDataCopy(p, c, logical, sums, copy)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	sector, size := int(fs.sb.sectorSize), fs.sb.checksum.size
	if c.copies > 1 && len(p) > sector && sums != nil { // each copy may be right elsewhere
		for at := 0; at < len(p); at += sector {
			if err := f.readData(p[at:at+sector], logical+uint64(at), sums[at/sector*size:][:size], e); err != nil {
				return err
			}
		}
		return nil
	}
	var wrong wrongSum
	if errors.As(first, &wrong) {
		return layer.Damaged(f.name(), offsetOf(uint64(wrong)), "the %s of address %#x, byte %d of the file, is wrong",
			fs.sb.checksum.name, uint64(wrong), e.where(uint64(wrong)))
	}
	return unreadable(f.name(), offsetOf(logical), first)
}

// wrongSum is the error of a sector, by its address, that has another checksum.
type wrongSum uint64

func (w wrongSum) Error() string { return fmt.Sprintf("the checksum of %#x is wrong", uint64(w)) }

func (fs *Filesystem) readDataCopy(p []byte, c *chunk, logical uint64, sums []byte, copy int) error {
	if err := fs.readCopy(p, c, logical, copy); err != nil {
		return err
	}
	sector, size := int(fs.sb.sectorSize), fs.sb.checksum.size
	for at := 0; len(sums) > 0; at += sector {
		if !fs.sb.checksum.matches(sums[:size], p[at:at+sector]) {
			return wrongSum(logical + uint64(at))
		}
		sums = sums[size:]
	}
	return nil
}

// lookUpSums returns the checksums from a logical address on, of at most length
// bytes: as far as there is one for each sector.
//
// Layout of a checksum item: its key is (-10, EXTENT_CSUM, address), its content
// one checksum for each sector from there on.
func (fs *Filesystem) lookUpSums(logical, length uint64) ([]byte, error) {
	if fs.csums == nil {
		return nil, fs.csumsErr
	}
	sector, size := uint64(fs.sb.sectorSize), uint64(fs.sb.checksum.size)
	sums := make([]byte, 0, length/sector*size) // length is at most windowBytes, or what is read
	var w walk
	if err := fs.csums.seekBefore(&w, key{csumObject, kindCsum, logical}); err != nil {
		return nil, err
	}
	for next, end := logical, logical+length; next < end; {
		known, stop, err := fs.sumsAt(&w, next)
		if err != nil {
			return nil, err
		}
		if len(known) == 0 {
			break
		}
		count := min((stop-next)/sector, (end-next)/sector)
		sums = append(sums, known[:count*size]...)
		next += count * sector
	}
	return sums, nil
}

// sumsAt returns the checksums that one item has from a logical address on, and
// the address where they end: from the log, or from w, which stands at the item
// or at one before it.
func (fs *Filesystem) sumsAt(w *walk, logical uint64) (sums []byte, stop uint64, err error) {
	logged, before := fs.logSums.at(logical)
	if logged != nil {
		return logged.sums[(logical-logged.first)/uint64(fs.sb.sectorSize)*uint64(fs.sb.checksum.size):], logged.end, nil
	}
	sector, size := uint64(fs.sb.sectorSize), uint64(fs.sb.checksum.size)
	for w.valid() && w.key().is(csumObject, kindCsum) {
		start, raw := w.key().offset, w.value().raw
		if start%sector != 0 || uint64(len(raw))%size != 0 || !ondisk.WithinU(start, uint64(len(raw))/size*sector, 1<<63) {
			return nil, 0, layer.Damaged("checksum tree", w.at(), "the item of address %#x has %d bytes", start, len(raw))
		}
		stop := start + uint64(len(raw))/size*sector
		if start > logical {
			break
		}
		if logical < stop {
			return raw[(logical-start)/sector*size:], min(stop, before), nil
		}
		if err := w.next(); err != nil {
			return nil, 0, err
		}
	}
	return nil, logical, nil
}
