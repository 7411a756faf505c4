package sandbox

import (
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// Reading ahead. A reader that goes through content from its start to its end
// finds the next windows there already: the worker reads them while the caller
// works on the last.
const (
	windowSize = 512 << 10
	// maxWindows is how many windows are ahead of a steady reader.
	maxWindows = 4
	// parallel is how many chunks of one large read are asked for at once:
	// enough for the worker to use its threads.
	parallel = 4
)

// content is a run of bytes that the worker reads: a disk, a volume or a file.
// It implements [disk.Sparse].
type content struct {
	client *client
	files  *images
	object wire.Object
	size   int64

	mapping sync.Mutex // guards pieces
	pieces  pieceList  // those that were asked for last

	// mu guards what follows. Who finds it taken reads without it: of several
	// readers at once, one goes through the windows.
	mu      sync.Mutex
	next    int64     // where the last read ended
	depth   int       // how many windows to keep ahead
	windows []*window // consecutive
}

// window is a part of the content that was asked for ahead of time.
type window struct {
	off  int64
	buf  *[windowSize]byte
	size int
	call *call
}

func newContent(r *Reader, o wire.Object, size int64) *content {
	return &content{client: r.client, files: &r.files, object: o, size: size}
}

// Size is the size in bytes.
func (f *content) Size() int64 { return f.size }

// ReadAt implements [disk.Sparse]. What lies in an image as it is, is read from
// there; the rest by the worker.
func (f *content) ReadAt(p []byte, off int64) (int, error) {
	p, end, err := clamp(p, off, f.size)
	if err != nil {
		return 0, err
	}
	n := len(p)
	for len(p) > 0 {
		part := p
		piece, err := f.piece(off)
		if err == nil {
			part = p[:min(int64(len(p)), piece.Offset+piece.Length-off)]
		}
		switch {
		case err != nil || piece.Kind == disk.ExtentData && piece.File == wire.NoFile:
			// Who cannot say where something lies may still read it, or say
			// better why not.
			err = f.fromWorker(part, off)
		case piece.Kind == disk.ExtentData:
			if err = f.files.read(part, &piece, off); err == errSum {
				err = f.fromWorker(part, off)
			}
		default:
			clear(part)
		}
		if err != nil {
			return n - len(p), err
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return n, end
}

// fromWorker reads into p, which lies within the content.
func (f *content) fromWorker(p []byte, off int64) error {
	if !f.mu.TryLock() {
		return f.direct(p, off)
	}
	defer f.mu.Unlock()
	return f.stream(p, off)
}

// clamp returns the part of p that a read at off can fill, and whether that is
// the end. The error is io.EOF for a read behind the end.
func clamp(p []byte, off, size int64) (part []byte, end, err error) {
	if off < 0 {
		return nil, nil, fmt.Errorf("read at %d: %w", off, os.ErrInvalid)
	}
	if len(p) == 0 {
		return nil, nil, nil
	}
	if off >= size {
		return nil, nil, io.EOF
	}
	if int64(len(p)) > size-off {
		return p[:size-off], io.EOF, nil
	}
	return p, nil, nil
}

// direct reads into p, which lies within the content.
func (f *content) direct(p []byte, off int64) error {
	var calls [parallel]*call
	for len(p) > 0 {
		var first error
		n := 0
		for ; n < parallel && len(p) > 0; n++ {
			part := p[:min(len(p), wire.MaxData)]
			if calls[n], first = f.send(part, off); first != nil {
				break
			}
			p, off = p[len(part):], off+int64(len(part))
		}
		// All must have ended before p is the caller's again.
		for _, k := range calls[:n] {
			<-k.done
			if first == nil {
				first = k.err
			}
		}
		if first != nil {
			return first
		}
	}
	return nil
}

func (f *content) send(dst []byte, off int64) (*call, error) {
	return f.client.sendRead(f.object, dst, off)
}

// stream reads into p by way of the windows, if the reader is one that goes
// through the content in order.
func (f *content) stream(p []byte, off int64) error {
	f.drop(off)
	sequential := len(f.windows) > 0 || off == f.next
	f.next = off + int64(len(p))
	if !sequential {
		f.depth = 0
		return f.direct(p, off)
	}
	// A large read that starts at the beginning may be the only one: it goes to where it
	// is wanted, and no more than one window is read with it.
	if f.depth == 0 && len(f.windows) == 0 && len(p) >= windowSize/2 {
		f.depth = 1
		if err := f.ask(f.next, 1); err != nil {
			return err
		}
		return f.direct(p, off)
	}
	for len(p) > 0 {
		n, err := f.fromWindow(p, off)
		if err != nil {
			// What is broken may lie beyond p: only p's own bytes count.
			f.windows, f.depth = nil, 0
			return f.direct(p, off)
		}
		p, off = p[n:], off+int64(n)
		f.drop(off)
	}
	return nil
}

// drop forgets the windows that end at off or before, or all if off lies in
// none of them.
func (f *content) drop(off int64) {
	for len(f.windows) > 0 {
		w := f.windows[0]
		if off >= w.off && off < w.off+int64(w.size) {
			return
		}
		if off < w.off {
			f.windows = nil // their buffers are still being filled
			return
		}
		f.windows = f.windows[1:]
		if w.completed() {
			windowBuffers.Put(w.buf)
		}
	}
}

// fromWindow copies what the first window has for p, and keeps windows ahead.
func (f *content) fromWindow(p []byte, off int64) (int, error) {
	if err := f.ask(off, f.depth+1); err != nil {
		return 0, err
	}
	w := f.windows[0]
	<-w.call.done
	if w.call.err != nil {
		return 0, w.call.err
	}
	n := copy(p, w.buf[off-w.off:w.size])
	if off+int64(n) == w.off+int64(w.size) {
		f.depth = min(max(1, 2*f.depth), maxWindows)
	}
	return n, nil
}

// ask sees to it that count windows are there, the first of them at off if there
// is none.
func (f *content) ask(off int64, count int) error {
	if n := len(f.windows); n > 0 {
		off = f.windows[n-1].off + int64(f.windows[n-1].size)
	}
	for len(f.windows) < count && off < f.size {
		w := &window{off: off, buf: windowBuffers.Get().(*[windowSize]byte), size: int(min(windowSize, f.size-off))}
		k, err := f.send(w.buf[:w.size], off)
		if err != nil {
			return err
		}
		w.call = k
		f.windows = append(f.windows, w)
		off += int64(w.size)
	}
	return nil
}

func (w *window) completed() bool {
	select {
	case <-w.call.done:
		return true
	default:
		return false
	}
}

var windowBuffers = sync.Pool{New: func() any { return new([windowSize]byte) }}
