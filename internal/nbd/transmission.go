package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/drydock-vm/drydock/disk"
)

// transmission is the phase in which a client reads. Its workers take turns at
// taking the next request from the socket; each then answers its request by
// itself, so that one reads from the disk while another writes to the client.
// Replies may overtake each other, as the protocol allows.
type transmission struct {
	*session
	disk   disk.Sparse
	size   uint64
	status bool // base:allocation was agreed on for this export
	memory *semaphore.Weighted

	// turn holds one token, whose holder may use the reading half of conn. It
	// is closed when there are no more requests.
	turn chan struct{}

	writing sync.Mutex // guards the writing half of conn

	fault     sync.Mutex // guards what follows
	err       error      // what ended the connection
	diskFault bool       // an error of the disk was reported
}

func newTransmission(s *session, e *Export) *transmission {
	return &transmission{
		session: s, disk: e.Disk, size: uint64(e.Disk.Size()), status: s.context == e,
		memory: semaphore.NewWeighted(maxBuffered), turn: make(chan struct{}, 1),
	}
}

// run answers requests until the client leaves.
func (t *transmission) run() error {
	if c, ok := t.conn.(interface{ SetWriteBuffer(int) error }); ok {
		// The default will do where the host does not grant it.
		_ = c.SetWriteBuffer(socketBuffer)
	}
	t.turn <- struct{}{}
	var wg sync.WaitGroup
	for range maxInFlight {
		wg.Go(func() {
			for {
				r, ok := t.next()
				if !ok {
					return
				}
				t.serve(r)
			}
		})
	}
	wg.Wait()
	t.fault.Lock()
	defer t.fault.Unlock()
	return leaving(t.err)
}

// fail ends the connection because of err.
func (t *transmission) fail(err error) {
	t.fault.Lock()
	defer t.fault.Unlock()
	if t.err == nil {
		t.err = err
	}
	t.conn.Close()
}

// request is what a client asks for.
type request struct {
	flags   uint16
	command command
	cookie  uint64
	offset  uint64
	length  uint32
}

// next reads the next request. It reports false when there are no more.
func (t *transmission) next() (request, bool) {
	if _, more := <-t.turn; !more {
		return request{}, false
	}
	r, err := t.readRequest()
	if err == nil && r.command != cmdDisconnect {
		t.turn <- struct{}{}
		return r, true
	}
	if err != nil && !errors.Is(err, io.EOF) {
		t.fail(err)
	}
	close(t.turn)
	return request{}, false
}

// readRequest waits for a request for as long as it takes, but not in the middle
// of one.
func (t *transmission) readRequest() (request, error) {
	if _, err := t.in.Peek(1); err != nil {
		return request{}, err
	}
	if t.in.Buffered() >= requestSize {
		return t.parseRequest()
	}
	if err := t.conn.SetReadDeadline(time.Now().Add(stallTimeout)); err != nil {
		return request{}, err
	}
	r, err := t.parseRequest()
	return r, errors.Join(err, t.conn.SetReadDeadline(time.Time{}))
}

func (t *transmission) parseRequest() (request, error) {
	var b [requestSize]byte
	if _, err := io.ReadFull(t.in, b[:]); err != nil {
		return request{}, err
	}
	if magic := binary.BigEndian.Uint32(b[:]); magic != magicRequest {
		return request{}, fmt.Errorf("a request begins with %#x", magic)
	}
	r := request{
		flags:   binary.BigEndian.Uint16(b[4:]),
		command: command(binary.BigEndian.Uint16(b[6:])),
		cookie:  binary.BigEndian.Uint64(b[8:]),
		offset:  binary.BigEndian.Uint64(b[16:]),
		length:  binary.BigEndian.Uint32(b[24:]),
	}
	if r.command == cmdWrite {
		return r, t.skipContent(r.length)
	}
	return r, nil
}

// skipContent drops what a client wants to write.
func (t *transmission) skipContent(length uint32) error {
	if length > maxRequest {
		return fmt.Errorf("a client writes %d bytes at once, at most %d are possible", length, maxRequest)
	}
	if err := t.conn.SetReadDeadline(time.Now().Add(stallTimeout)); err != nil {
		return err
	}
	if _, err := t.in.Discard(int(length)); err != nil {
		return noEOF(err)
	}
	return t.conn.SetReadDeadline(time.Time{})
}

// serve answers a request.
func (t *transmission) serve(r request) {
	if e, why := t.check(r); why != "" {
		t.sendError(r, e, why)
		return
	}
	switch r.command {
	case cmdRead:
		t.read(r)
	case cmdCache:
		t.cache(r)
	case cmdBlockStatus:
		t.blockStatus(r)
	}
}

// check returns why a request is refused, or nothing. What passes is one of the
// commands of [transmission.serve], lies in the disk and is not empty.
func (t *transmission) check(r request) (errno, string) {
	var allowed uint16
	longest := uint32(maxRequest)
	switch r.command {
	case cmdRead:
		if t.structured {
			allowed = cmdFlagDF
		}
	case cmdCache:
	case cmdBlockStatus:
		if !t.status {
			return errInvalid, contextAllocation + " was not agreed on for this export"
		}
		allowed, longest = cmdFlagReqOne, 1<<32-1
	case cmdWrite, cmdTrim, cmdWriteZeroes, cmdResize:
		return errPermission, "this disk is for reading only"
	default:
		return errInvalid, fmt.Sprintf("command %d is not supported", r.command)
	}
	switch {
	case r.flags&^allowed != 0:
		return errInvalid, fmt.Sprintf("flags %#x are not possible here", r.flags)
	case r.length == 0:
		return errInvalid, "a length of 0 asks for nothing"
	case r.length > longest:
		return errInvalid, fmt.Sprintf("%d bytes are more than the %d that are possible", r.length, longest)
	case r.offset > t.size || uint64(r.length) > t.size-r.offset:
		return errInvalid, fmt.Sprintf("the disk ends at %d", t.size)
	}
	return 0, ""
}

// diskError tells the client that its request failed in the disk, and the server
// once for each connection.
func (t *transmission) diskError(err error) string {
	t.fault.Lock()
	first := !t.diskFault
	t.diskFault = true
	t.fault.Unlock()
	if first {
		t.report(fmt.Errorf("NBD client: %w", err))
	}
	return err.Error()
}

// send writes to the client.
func (t *transmission) send(b []byte) {
	t.writing.Lock()
	defer t.writing.Unlock()
	for len(b) > 0 {
		n := min(len(b), 1<<20)
		err := t.conn.SetWriteDeadline(time.Now().Add(stallTimeout))
		if err == nil {
			_, err = t.conn.Write(b[:n])
		}
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				t.fail(err)
			}
			return
		}
		b = b[n:]
	}
}
