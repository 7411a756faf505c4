package qcow2

import (
	"io"
	"os"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// maxSteps bounds the batches and the clusters waited for that one read keeps
// track of: with 16 MiB of the disk in work, more would not make it faster.
const maxSteps = 64

// ReadAt reads from the guest's disk. A read that fails returns the bytes before
// the cluster that failed.
func (im *Image) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, layer.Unreadable("disk", off, os.ErrInvalid)
	}
	if off >= im.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > im.size-off {
		p, end = p[:im.size-off], io.EOF
	}
	rd := reading{im: im, length: int64(len(p)), failedAt: im.size}
	for done := 0; done < len(p) && rd.err == nil; {
		at := off + int64(done)
		r, err := im.mapping.at(at, int64(len(p)-done))
		if err != nil {
			rd.fail(at, err)
			break
		}
		rd.run(p[done:done+int(r.length)], at, r)
		done += int(r.length)
	}
	if im.streams != nil && im.packed.Load() && rd.err == nil {
		im.readAhead(off, off+int64(len(p)))
	}
	rd.settle()
	if rd.err != nil {
		return int(rd.failedAt - off), rd.err
	}
	return len(p), end
}

// reading is one call of ReadAt. Compressed clusters are left to batches, which
// other goroutines work on, while it goes on with what follows them.
type reading struct {
	im      *Image
	length  int64    // bytes, of all
	filling *batch   // not yet under way
	steps   []*batch // under way, writing into the caller's buffer
	waits   []wait

	failedAt int64 // guest offset of the first byte that could not be read
	err      error // why
}

// wait is a part of a cluster that is being read ahead.
type wait struct {
	ahead promise
	part  cluster
}

// fail remembers the failure that comes first on the disk.
func (rd *reading) fail(at int64, err error) {
	if err != nil && at < rd.failedAt {
		rd.failedAt, rd.err = at, err
	}
}

// run fills p, which is as long as r, from guest offset at.
func (rd *reading) run(p []byte, at int64, r run) {
	switch r.kind {
	case runData:
		rd.fail(at, rd.im.readData(p, r.host))
	case runCompressed:
		rd.compressed(p, at, r)
	case runUnallocated:
		rd.fail(at, rd.im.readBacking(p, at))
	case runZero:
		clear(p)
	}
}

// compressed fills p from a compressed cluster, now or by the end of settle.
// Whole clusters are decompressed in place, so that a large read does not pay
// for a copy; the others through the cache, so that small reads do not pay for
// the cluster each time.
func (rd *reading) compressed(p []byte, at int64, r run) {
	im := rd.im
	within := at & (im.mapping.clusterSize() - 1)
	if whole := im.clusters.Get(r.entry); whole != nil {
		copy(p, whole[within:])
		return
	}
	if !im.packed.Load() {
		im.packed.Store(true)
	}
	c := cluster{run: r, at: at, dst: p, within: within}
	if ahead, ok := im.promised(r.entry); ok {
		rd.waits = append(rd.waits, wait{ahead, c})
	} else {
		if rd.filling == nil {
			rd.filling = im.newBatch(rd.length)
		}
		rd.filling.add(c)
		if rd.filling.full(im.mapping.clusterSize()) {
			im.workers.add(rd.filling)
			rd.steps = append(rd.steps, rd.filling)
			rd.filling = nil
		}
	}
	if len(rd.steps)+len(rd.waits) >= maxSteps {
		rd.settle()
	}
}

// settle finishes what is under way: nothing writes to the caller's buffer
// afterwards. The last batch is done here, not handed to another goroutine.
func (rd *reading) settle() {
	if rd.filling != nil {
		rd.im.decompressBatch(rd.filling)
		rd.fail(rd.filling.failedAt, rd.filling.err)
		rd.filling = nil
	}
	for _, b := range rd.steps {
		<-b.done
		rd.fail(b.failedAt, b.err)
	}
	for _, w := range rd.waits {
		rd.fail(w.part.at, rd.im.takeAhead(w))
	}
	rd.steps, rd.waits = rd.steps[:0], rd.waits[:0]
}

// readData reads stored clusters. The last cluster of the file may be cut, if
// nobody wrote behind the cut: the format does not ask for whole clusters, and
// QEMU reads zeros there. That every cluster starts within the file has been
// checked.
func (im *Image) readData(p []byte, host int64) error {
	var r io.ReaderAt = im.r
	if im.dataFile != nil {
		r = im.dataFile
	}
	there := max(0, min(int64(len(p)), im.mapping.dataSize-host))
	if err := ondisk.ReadFull(r, p[:there], host); err != nil {
		return layer.Unreadable("data cluster", host, err)
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
			return layer.Unreadable("backing file", off, err)
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
