package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// maxServing is how much longer a request may take because the worker waits for
// content: enough to replay the largest journal over a slow line.
const maxServing = 15 * time.Minute

// maxUnasked is how many bytes a worker may ask for while nothing is asked of it: the
// reader of qcow2 reads ahead.
const maxUnasked = 64 << 20

// imageFile is what an image is read from: exactly one of its fields is set.
type imageFile struct {
	file    *os.File
	content Content
}

// open returns what the parent itself reads.
func (f imageFile) open() (source, error) {
	if f.content != nil {
		return &borrowed{Content: f.content}, nil
	}
	return duplicate(f.file)
}

// givenOf is what a worker is given of files.
func givenOf(files []imageFile) (g given) {
	for _, f := range files {
		if f.content != nil {
			g.served = true
		} else {
			g.files = append(g.files, f.file)
		}
	}
	return g
}

// borrowed is content that stays the caller's: to close it ends its use here.
type borrowed struct {
	Content
	closed atomic.Bool
}

func (b *borrowed) ReadAt(p []byte, off int64) (int, error) {
	if b.closed.Load() {
		return 0, os.ErrClosed
	}
	return b.Content.ReadAt(p, off)
}

func (b *borrowed) Close() error {
	b.closed.Store(true)
	return nil
}

// server answers what a worker asks for: bytes of disks that are no file. It believes
// as little of a request as the client does of an answer.
type server struct {
	client *client
	socket *os.File
	files  []imageFile
	sizes  []int64 // of content, -1 for files
	done   chan struct{}

	unasked int64 // bytes that the worker has asked for while nothing was asked of it

	mu    sync.Mutex    // guards what follows
	spent time.Duration // on reading content
	since time.Time     // since when it has been at it; zero: it is not
}

// serve starts to answer, if there is content among the files.
func (r *Reader) serve(files []imageFile) {
	c := r.client
	if c.link.content == nil {
		return
	}
	s := &server{client: c, socket: c.link.content, files: files, done: make(chan struct{})}
	for _, f := range files {
		size := int64(-1)
		if f.content != nil {
			size = f.content.Size()
		}
		s.sizes = append(s.sizes, size)
	}
	c.mu.Lock()
	c.server = s
	c.mu.Unlock()
	go s.run()
}

// served returns the server, or nil.
func (c *client) served() *server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.server
}

// taken is how long it took to read content for the worker, in all; 0 where nothing
// is served.
func (s *server) taken() time.Duration {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		return s.spent
	}
	return s.spent + time.Since(s.since)
}

// run answers until the socket ends. A worker that closes its end of this one alone
// has nothing to read any more, which is its own loss.
func (s *server) run() {
	defer close(s.done)
	buf := make([]byte, wire.HeaderSize+wire.MaxFetch)
	for {
		id, r, err := s.next(buf)
		if errors.Is(err, wire.ErrBroken) {
			s.client.fail(&Error{Err: ErrLied, Reason: "it asked for content in a way that cannot be: " + err.Error(), Request: s.client.oldest()})
		}
		if err != nil {
			return
		}
		if _, err := s.socket.Write(s.answer(id, r, buf)); err != nil {
			return
		}
	}
}

// next reads a request. What the worker does not do when it is honest is broken.
func (s *server) next(buf []byte) (id uint32, r wire.Fetch, err error) {
	frame := buf[:wire.HeaderSize+wire.FetchSize]
	if _, err := io.ReadFull(s.socket, frame); err != nil {
		return 0, r, err
	}
	h, err := wire.ParseHeader(frame, wire.FetchSize)
	switch {
	case err != nil:
		return 0, r, err
	case h.Code != uint8(wire.OpFetch) || h.Length != wire.FetchSize:
		return 0, r, fmt.Errorf("%w: request %d of %d bytes", wire.ErrBroken, h.Code, h.Length)
	}
	if r, err = wire.DecodeFetch(frame[wire.HeaderSize:], s.sizes); err != nil {
		return 0, r, err
	}
	if s.unasked += int64(r.Length); !s.client.idle() {
		s.unasked = 0
	}
	if s.unasked > maxUnasked {
		return 0, r, fmt.Errorf("%w: more than %d bytes, and nothing is asked of the worker", wire.ErrBroken, maxUnasked)
	}
	more, err := unread(s.socket)
	if err == nil && more > 0 {
		err = fmt.Errorf("%w: it asks again before it has its answer", wire.ErrBroken)
	}
	return h.ID, r, err
}

// answer returns the answer to a request, in buf.
func (s *server) answer(id uint32, r wire.Fetch, buf []byte) []byte {
	p := buf[wire.HeaderSize : wire.HeaderSize+int(r.Length)]
	h := wire.Header{Length: r.Length, ID: id, Code: wire.StatusOK}
	s.begin()
	n, err := s.files[r.File].content.ReadAt(p, r.Off)
	s.end()
	if n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		buf = wire.AppendError(buf[:wire.HeaderSize], err)
		h.Code, h.Length, p = wire.StatusError, uint32(len(buf)-wire.HeaderSize), buf[wire.HeaderSize:]
	}
	wire.PutHeader(buf, h)
	return buf[:wire.HeaderSize+len(p)]
}

func (s *server) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Now()
}

func (s *server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spent, s.since = s.spent+time.Since(s.since), time.Time{}
}

// unread returns how many bytes have come that nobody has read.
func unread(socket *os.File) (n int, err error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	var callErr error
	if err := raw.Control(func(fd uintptr) { n, callErr = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); err != nil {
		return 0, err
	}
	return n, callErr
}
