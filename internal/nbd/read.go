package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/drydock-vm/drydock/disk"
)

// read answers cmdRead.
func (t *transmission) read(r request) {
	if t.structured && r.flags&cmdFlagDF == 0 {
		t.readPieces(r)
		return
	}
	t.readWhole(r)
}

// readWhole answers with all the content at once, after it was read: in these
// replies there is no way to tell of an error later.
func (t *transmission) readWhole(r request) {
	b := t.buffer(int(r.length))
	defer t.release(b)
	end := headroom + int(r.length)
	if err := t.readDisk(b.memory[headroom:end], int64(r.offset)); err != nil {
		t.sendError(r, errIO, t.diskError(err))
		return
	}
	if !t.structured {
		start := headroom - simpleHeaderSize
		appendSimple(b.memory[start:start], r.cookie, 0)
		t.send(b.memory[start:end])
		return
	}
	start := headroom - chunkDataSize
	head := appendChunk(b.memory[start:start], chunkData, r.cookie, 8+int(r.length))
	binary.BigEndian.AppendUint64(head, r.offset)
	finish(head)
	t.send(b.memory[start:end])
}

// readDisk fills p.
func (t *transmission) readDisk(p []byte, off int64) error {
	n, err := t.disk.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(p), off, noEOF(err))
}

// piece is a range of the disk, in bytes, that is read or known to be zeros.
type piece struct {
	off, n int64
	zeros  bool
}

// pieces divides what a request reads.
func (t *transmission) pieces(r request) ([]piece, error) {
	var list []piece
	err := t.extents(r, func(e disk.Extent) error {
		p := piece{e.Offset, e.Length, e.Kind != disk.ExtentData && e.Length >= minHole}
		if last := len(list) - 1; last >= 0 && list[last].zeros == p.zeros {
			list[last].n += p.n
			return nil
		}
		list = append(list, p)
		return nil
	})
	return list, err
}

// errDisorder is a disk whose extents are not what package disk says.
var errDisorder = errors.New("the extents of the disk are not in order")

// extents yields the extents of what a request is about, with neighbours of one
// kind merged.
func (t *transmission) extents(r request, yield func(disk.Extent) error) error {
	var last disk.Extent
	next, end := int64(r.offset), int64(r.offset)+int64(r.length)
	err := t.disk.Extents(next, int64(r.length), func(e disk.Extent) error {
		if e.Offset != next || e.Length < 0 || e.Length > end-next {
			return errDisorder
		}
		next += e.Length
		if e.Kind == last.Kind && last.Length > 0 {
			last.Length += e.Length
			return nil
		}
		before := last
		last = e
		if before.Length == 0 {
			return nil
		}
		return yield(before)
	})
	switch {
	case err != nil:
		return err
	case next != end:
		return errDisorder
	}
	return yield(last)
}

// readPieces answers a read with as many chunks as it takes.
func (t *transmission) readPieces(r request) {
	list, err := t.pieces(r)
	if err != nil {
		t.sendError(r, errIO, t.diskError(err))
		return
	}
	b := t.buffer(chunkSize)
	defer t.release(b)
	w := pieceWriter{transmission: t, request: r, memory: b.memory}
	w.restart()
	for _, p := range list {
		if p.zeros {
			w.hole(p.off, p.n)
			continue
		}
		for ; p.n > 0; p.off, p.n = p.off+chunkSize, p.n-chunkSize {
			if err := w.data(p.off, int(min(p.n, chunkSize))); err != nil {
				w.end(p.off, t.diskError(err))
				return
			}
		}
	}
	w.flush(true)
}

// pieceWriter gathers chunks, so that small ones are sent together.
type pieceWriter struct {
	*transmission
	request
	memory []byte
	out    []byte // what is to be sent, in memory
	last   int    // where in out the latest chunk begins
}

// restart begins with an empty buffer, such that content behind a first header
// lies where [headroom] says.
func (w *pieceWriter) restart() { w.out = w.memory[headroom-chunkDataSize:][:0] }

// flush sends what is there.
func (w *pieceWriter) flush(done bool) {
	if len(w.out) == 0 {
		return
	}
	if done {
		finish(w.out[w.last:])
	}
	w.send(w.out)
	w.restart()
}

// reserve makes room for n bytes, which the empty buffer has.
func (w *pieceWriter) reserve(n int) {
	if n > cap(w.out)-len(w.out) {
		w.flush(false)
	}
}

func (w *pieceWriter) hole(off, n int64) {
	w.reserve(chunkHoleSize)
	w.last = len(w.out)
	w.out = appendChunk(w.out, chunkHole, w.cookie, 12)
	w.out = binary.BigEndian.AppendUint64(w.out, uint64(off))
	w.out = binary.BigEndian.AppendUint32(w.out, uint32(n))
}

// data adds n bytes of content, at most [chunkSize].
func (w *pieceWriter) data(off int64, n int) error {
	w.reserve(chunkDataSize + n)
	begin := len(w.out)
	out := appendChunk(w.out, chunkData, w.cookie, 8+n)
	out = binary.BigEndian.AppendUint64(out, uint64(off))
	out = out[:len(out)+n]
	if err := w.readDisk(out[len(out)-n:], off); err != nil {
		return err
	}
	w.out, w.last = out, begin
	return nil
}

// end sends what was read, and why there is no more: the content at off.
func (w *pieceWriter) end(off int64, text string) {
	text = message(text)
	w.reserve(chunkHeaderSize + 14 + len(text))
	w.last = len(w.out)
	w.out = appendChunk(w.out, chunkErrorOffset, w.cookie, 14+len(text))
	w.out = appendError(w.out, errIO, text)
	w.out = binary.BigEndian.AppendUint64(w.out, uint64(off))
	w.flush(true)
}

// cache answers cmdCache: it reads, so that whatever lies between this server and
// the disk's bytes has them at hand.
func (t *transmission) cache(r request) {
	list, err := t.pieces(r)
	if err != nil {
		t.sendError(r, errIO, t.diskError(err))
		return
	}
	b := t.buffer(chunkSize)
	defer t.release(b)
	for _, p := range list {
		for ; p.n > 0 && !p.zeros; p.off, p.n = p.off+chunkSize, p.n-chunkSize {
			if err := t.readDisk(b.memory[headroom:][:min(p.n, chunkSize)], p.off); err != nil {
				t.sendError(r, errIO, t.diskError(err))
				return
			}
		}
	}
	t.sendDone(r)
}
