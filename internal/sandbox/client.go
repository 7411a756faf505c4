package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

const (
	// readBuffer holds an answer with content of the usual size.
	readBuffer = wire.InlineData + 4<<10
	// exitGrace is how long a worker whose socket is closed may take to die of
	// its own accord, which is when its exit tells why.
	exitGrace = 2 * time.Second
)

// client asks one worker, and believes nothing of what it answers.
//
// A single goroutine, run, reads the answers. It alone completes calls, so that
// no buffer is written to after its call has returned. Whoever finds that the
// worker is not to be talked to any more calls fail, which makes run end.
type client struct {
	process *process
	link    *link
	timeout time.Duration
	slots   chan struct{} // holds a token for each request in flight
	ended   chan struct{} // closed when run has ended

	writing sync.Mutex // one request is written at a time

	mu      sync.Mutex       // guards what follows
	pending map[uint32]*call // by id
	last    uint32           // the last id that was given out
	cause   *Error           // why the worker is not to be used any more
	server  *server          // of the content that the worker asks for, or nil
}

// call is a request and what becomes of it.
type call struct {
	op      wire.Op
	request []byte // encoded
	dst     []byte // for content
	slot    uint8  // through which the content comes; 0: it is the payload
	timer   *time.Timer
	started time.Time
	waited  time.Duration // what the server had taken when it started

	done chan struct{} // closed when dst and the fields below are set
	body []byte        // the payload of the answer, unless it is content
	err  error
}

func newClient(p *process, l *link, timeout time.Duration) *client {
	return &client{
		process: p, link: l, timeout: timeout,
		slots:   make(chan struct{}, wire.MaxInFlight),
		ended:   make(chan struct{}),
		pending: make(map[uint32]*call),
	}
}

// request is a request of package wire.
type request interface{ Append([]byte) []byte }

// ask sends a request and waits for its answer. When ctx ends, the answer is no
// longer waited for.
func (c *client) ask(ctx context.Context, op wire.Op, r request) (*call, []byte, error) {
	k, err := c.send(op, r)
	if err != nil {
		return nil, nil, err
	}
	select {
	case <-k.done:
		return k, k.body, k.err
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// send sends a request, and returns without waiting for its answer.
func (c *client) send(op wire.Op, r request) (*call, error) {
	k := &call{op: op}
	return k, c.transmit(k, r)
}

// sendRead asks for content that is to fill dst.
func (c *client) sendRead(o wire.Object, dst []byte, off int64) (*call, error) {
	k := &call{op: wire.OpRead, dst: dst}
	if len(dst) > wire.InlineData {
		if err := c.takeSlot(k); err != nil {
			return nil, err
		}
	}
	return k, c.transmit(k, wire.Read{Object: o, Off: off, Length: uint32(len(dst)), Slot: k.slot})
}

// sendMany asks for the content of small files, one after the other in the
// call's dst. It sets the slot of r.
func (c *client) sendMany(r *wire.ReadMany) (*call, error) {
	k := &call{op: wire.OpReadMany, dst: make([]byte, r.Size())}
	if err := c.takeSlot(k); err != nil {
		return nil, err
	}
	r.Slot = k.slot
	return k, c.transmit(k, r)
}

// takeSlot reserves a slot for a call. It comes back with the answer.
func (c *client) takeSlot(k *call) error {
	select {
	case k.slot = <-c.link.free:
		return nil
	case <-c.ended:
		return c.failure()
	}
}

// transmit sends a request.
func (c *client) transmit(k *call, r request) error {
	select {
	case c.slots <- struct{}{}:
	case <-c.ended:
		return c.failure()
	}
	frame := make([]byte, wire.HeaderSize, wire.HeaderSize+64)
	if r != nil {
		frame = r.Append(frame)
	}
	k.request, k.done = frame[wire.HeaderSize:], make(chan struct{})
	id, ok := c.register(k)
	if !ok {
		<-c.ended
		return c.failure()
	}
	wire.PutHeader(frame, wire.Header{Length: uint32(len(k.request)), ID: id, Code: uint8(k.op)})

	c.writing.Lock()
	_, err := c.link.socket.Write(frame)
	c.writing.Unlock()
	if err != nil {
		// run finds the worker's end of the socket closed, learns why, and
		// completes this call with the others.
		<-k.done
		return k.err
	}
	return nil
}

// register makes a call known to run, and starts its time. It fails when the
// worker is not to be used any more.
func (c *client) register(k *call) (id uint32, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		return 0, false
	}
	for c.last++; c.pending[c.last] != nil; c.last++ {
	}
	id = c.last
	c.pending[id] = k
	k.started, k.waited = time.Now(), c.server.taken()
	k.timer = time.AfterFunc(c.timeout, func() { c.expire(id, k) })
	return id, true
}

// expire ends the use of a worker that has not answered in time. The time that it
// has waited for content is not its own, up to [maxServing].
func (c *client) expire(id uint32, k *call) {
	c.mu.Lock()
	if c.pending[id] != k {
		c.mu.Unlock()
		return
	}
	allowed := c.timeout + min(c.server.taken()-k.waited, maxServing)
	left := allowed - time.Since(k.started)
	if left > 0 {
		k.timer.Reset(left)
	}
	c.mu.Unlock()
	if left <= 0 {
		c.fail(&Error{Err: ErrTimeout, Reason: fmt.Sprintf("no answer within %v", allowed.Round(time.Second)), Request: k.String()})
	}
}

// idle reports whether nothing is asked of the worker.
func (c *client) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending) == 0
}

// run reads answers until the worker, or the trust in it, ends.
func (c *client) run() {
	err := c.readAnswers()
	c.fail(c.explain(err))
	c.process.kill()
	<-c.process.exited

	c.mu.Lock()
	left := c.pending
	c.pending = nil
	c.mu.Unlock()
	close(c.ended)
	for _, k := range left {
		k.timer.Stop()
		k.err = c.failure()
		close(k.done)
	}
	c.writing.Lock() // whoever is still writing fails soon, with nobody there
	defer c.writing.Unlock()
	_ = c.link.close() // nothing was written that could be lost
}

// explain returns what the end of the conversation means.
func (c *client) explain(err error) *Error {
	e := &Error{Request: c.oldest()}
	if errors.Is(err, wire.ErrBroken) {
		e.Err, e.Reason = ErrLied, "it gave an answer that cannot be true: "+err.Error()
		return e
	}
	// The worker's end was closed: as a rule because it is dying, but one that
	// closed it and goes on must not hold anybody up.
	select {
	case <-c.process.exited:
		e.Err, e.Reason = ErrDied, c.process.exitReason()
	case <-time.After(exitGrace):
		e.Err, e.Reason = ErrLied, "it closed its socket and went on running"
	}
	return e
}

// readAnswers completes calls until something is wrong.
func (c *client) readAnswers() error {
	in := bufio.NewReaderSize(c.link.socket, readBuffer)
	var head [wire.HeaderSize]byte
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return err
		}
		h, err := wire.ParseHeader(head[:], wire.MaxAnswer)
		if err != nil {
			return err
		}
		c.mu.Lock()
		k := c.pending[h.ID]
		c.mu.Unlock()
		if k == nil {
			return fmt.Errorf("%w: an answer to request %d, which is not open", wire.ErrBroken, h.ID)
		}
		if err := k.receive(in, h); err != nil {
			return err
		}
		if k.slot != 0 {
			if k.err == nil {
				c.link.take(k.slot, k.dst)
			}
			c.link.free <- k.slot
		}
		c.mu.Lock()
		delete(c.pending, h.ID)
		c.mu.Unlock()
		k.timer.Stop()
		<-c.slots
		close(k.done)
	}
}

// receive reads the payload of the answer to k.
func (k *call) receive(in io.Reader, h wire.Header) error {
	switch {
	case h.Code == wire.StatusError:
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(in, payload); err != nil {
			return err
		}
		remote, err := wire.DecodeError(payload)
		k.err = remote
		return err
	case h.Code != wire.StatusOK:
		return fmt.Errorf("%w: status %d", wire.ErrBroken, h.Code)
	case k.dst == nil || k.slot != 0:
		if k.op == wire.OpRead && h.Length != 0 {
			return fmt.Errorf("%w: content in two places", wire.ErrBroken)
		}
		k.body = make([]byte, h.Length)
		_, err := io.ReadFull(in, k.body)
		return err
	case int64(h.Length) != int64(len(k.dst)):
		return fmt.Errorf("%w: %d bytes of content, asked for %d", wire.ErrBroken, h.Length, len(k.dst))
	}
	_, err := io.ReadFull(in, k.dst)
	return err
}

// fail ends the use of the worker. The first cause counts.
func (c *client) fail(cause *Error) {
	c.mu.Lock()
	first := c.cause == nil
	if first {
		cause.Disk = c.process.disk
		c.cause = cause
	}
	c.mu.Unlock()
	if first {
		c.process.kill()
		c.link.hangUp()
	}
}

// lied ends the use of the worker because of an answer that cannot be true, and
// returns the error for it.
func (c *client) lied(k *call, err error) error {
	c.fail(&Error{Err: ErrLied, Reason: "it gave an answer that cannot be true: " + err.Error(), Request: k.String()})
	<-c.ended
	return c.failure()
}

// failure returns why the worker is not to be used any more.
func (c *client) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := *c.cause
	e.Stderr = c.process.stderrText()
	return &e
}

// oldest describes the request that has been waiting for longest, which is the
// one that most likely has to do with the worker's end.
func (c *client) oldest() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == 0 {
		return ""
	}
	ids := make([]uint32, 0, len(c.pending))
	for id := range c.pending {
		// Distances from the last id stay in order when ids wrap around.
		ids = append(ids, c.last-id)
	}
	return c.pending[c.last-slices.Max(ids)].String()
}
