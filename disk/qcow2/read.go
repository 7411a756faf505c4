package qcow2

import (
	"io"
	"os"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// ReadAt reads from the guest's disk. A read that fails returns the bytes before
// the cluster that failed.
func (im *Image) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, unreadable("disk", off, os.ErrInvalid)
	}
	if off >= im.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > im.size-off {
		p, end = p[:im.size-off], io.EOF
	}
	done := 0
	for done < len(p) {
		at := off + int64(done)
		r, err := im.mapping.at(at, int64(len(p)-done))
		if err != nil {
			return done, err
		}
		if err := im.readRun(p[done:done+int(r.length)], at, r); err != nil {
			return done, err
		}
		done += int(r.length)
	}
	return done, end
}

// readRun fills p, which is as long as r, from guest offset off.
func (im *Image) readRun(p []byte, off int64, r run) error {
	switch r.kind {
	case runData:
		return im.readData(p, r.host)
	case runCompressed:
		return im.readCompressed(p, off&(im.mapping.clusterSize()-1), r)
	case runUnallocated:
		return im.readBacking(p, off)
	}
	clear(p) // runZero
	return nil
}

// readData reads stored clusters. The last cluster of the file may be cut, if
// nobody wrote behind the cut: the format does not ask for whole clusters, and
// QEMU reads zeros there. That every cluster starts within the file has been
// checked.
func (im *Image) readData(p []byte, host int64) error {
	there := max(0, min(int64(len(p)), im.mapping.fileSize-host))
	if err := ondisk.ReadFull(im.r, p[:there], host); err != nil {
		return unreadable("data cluster", host, err)
	}
	clear(p[there:])
	return nil
}

// readBacking reads what the image does not hold. The backing file may be
// smaller than the image; what it does not reach reads as zeros.
func (im *Image) readBacking(p []byte, off int64) error {
	there := im.inBacking(off, int64(len(p)))
	if there > 0 {
		if err := ondisk.ReadFull(im.backing, p[:there], off); err != nil {
			return &disk.Error{Layer: "qcow2", Structure: "backing file", Offset: off, Err: err}
		}
	}
	clear(p[there:])
	return nil
}

// inBacking is how much of [off, off+length) the backing file reaches.
func (im *Image) inBacking(off, length int64) int64 {
	if im.backing == nil {
		return 0
	}
	return max(0, min(length, im.backing.Size()-off))
}

// readCompressed fills p from byte within of a compressed cluster. Whole
// clusters are decompressed in place, so that a stream does not pay for a copy;
// the others through the cache, so that small reads do not pay for the cluster
// each time.
func (im *Image) readCompressed(p []byte, within int64, r run) error {
	cluster, ok := im.clusters.get(r.entry)
	if !ok {
		size := im.mapping.clusterSize()
		if int64(len(p)) == size {
			return im.decompress(p, r)
		}
		cluster = make([]byte, size)
		if err := im.decompress(cluster, r); err != nil {
			return err
		}
		im.clusters.add(r.entry, cluster)
	}
	copy(p, cluster[within:])
	return nil
}

// decompress fills cluster from the compressed cluster of r.
func (im *Image) decompress(cluster []byte, r run) error {
	in := im.codec.input(int(r.stored))
	defer im.codec.release(in)
	if err := ondisk.ReadFull(im.r, *in, r.host); err != nil {
		return unreadable("compressed cluster", r.host, err)
	}
	if err := im.codec.decompress(cluster, *in); err != nil {
		return corrupt("compressed cluster", r.host, "%v", err)
	}
	return nil
}

// Extents calls yield for the extents of [off, off+length), neighbours of one
// kind merged. It reads L2 tables, and asks the backing file for its extents.
func (im *Image) Extents(off, length int64, yield func(disk.Extent) error) error {
	if !ondisk.Within(off, length, im.size) {
		return unreadable("disk", off, os.ErrInvalid)
	}
	var pending disk.Extent
	merge := func(e disk.Extent) error {
		if e.Length == 0 {
			return nil
		}
		if pending.Length > 0 && pending.Kind == e.Kind {
			pending.Length += e.Length
			return nil
		}
		last := pending
		pending = e
		if last.Length == 0 {
			return nil
		}
		return yield(last)
	}
	err := im.eachExtent(off, length, merge)
	if err == nil && pending.Length > 0 {
		err = yield(pending)
	}
	return err
}

// eachExtent calls yield for the extents of [off, off+length), some of which may
// be empty.
func (im *Image) eachExtent(off, length int64, yield func(disk.Extent) error) error {
	for end := off + length; off < end; {
		r, err := im.mapping.at(off, end-off)
		if err != nil {
			return err
		}
		e := disk.Extent{Offset: off, Length: r.length, Kind: disk.ExtentData}
		switch r.kind {
		case runZero:
			e.Kind = disk.ExtentZero
		case runUnallocated:
			e.Kind = disk.ExtentHole
			if there := im.inBacking(off, r.length); there > 0 {
				if err := im.backing.Extents(off, there, yield); err != nil {
					return err
				}
				e.Offset, e.Length = off+there, r.length-there
			}
		}
		if err := yield(e); err != nil {
			return err
		}
		off += r.length
	}
	return nil
}
