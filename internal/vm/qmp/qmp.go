//go:build linux

// Package qmp speaks the QEMU Machine Protocol (docs/interop/qmp-spec.txt in
// QEMU's sources) with one QEMU, over its Unix socket.
//
//	client, err := qmp.Dial(ctx, "/run/drydock/vm/web/qmp.sock")
//	…
//	defer client.Close()
//	err = client.Execute(ctx, "system_powerdown", nil, nil)
//
// A QEMU may have been taken over by its guest, so nothing of what it sends is
// trusted: messages, their number and the waiting for them are bounded, and
// whatever is not in the protocol ends the connection. A QMP socket serves one
// client at a time, and others wait in line for it: keep a Client for a moment
// and not for the life of a machine.
//
// It works with QEMU 2.9 (2017) and newer.
package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/escape"
)

const (
	// maxMessage bounds one message, in bytes. The longest that QEMU 7.2 has,
	// the answer to query-qmp-schema, takes 240 KiB; a list of 200 disks with
	// their backing files less.
	maxMessage = 1 << 20
	// maxEvents is how many events wait for whoever reads [Client.Events]. A
	// guest can cause any number of some kinds.
	maxEvents = 64
	// maxText bounds what is kept of a QEMU's own words, in bytes.
	maxText = 1 << 10
	// answerTimeout is how long an answer may take when the context has no
	// deadline. QEMU answers most commands within milliseconds, unless its main
	// loop waits for a disk.
	answerTimeout = 30 * time.Second
)

// ErrProtocol is in the chain of an error that says that what answers does not
// speak QMP as it should. The connection has ended.
var ErrProtocol = errors.New("not the QEMU machine protocol")

// ErrClosed says that the connection has ended: QEMU ended, or [Client.Close]
// was called.
var ErrClosed = errors.New("the QMP connection has ended")

// Error is QEMU's refusal of a command.
type Error struct {
	Command string // "system_powerdown"
	Class   string // "GenericError", "CommandNotFound", "DeviceNotFound"…; escaped
	Desc    string // for people; escaped
}

func (e *Error) Error() string {
	return fmt.Sprintf("QEMU refused %s: %s (%s)", e.Command, e.Desc, e.Class)
}

// Event is something that happened to the machine: "SHUTDOWN", "RESET",
// "STOP", "RESUME", "POWERDOWN" and many more.
type Event struct {
	Name string
	// Data is as the kind of event has it, or empty.
	Data json.RawMessage
}

// Client is a connection to a QEMU. It is safe for concurrent use.
type Client struct {
	conn   *net.UnixConn
	events chan Event
	done   chan struct{} // closed when the connection has ended

	// mu guards what follows.
	mu      sync.Mutex
	lastID  uint64
	waiting map[uint64]chan message
	err     error // why the connection has ended, once it has
}

// message is any message of the server.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	ID       *uint64         `json:"id"`
	answer
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

// answer is what a message says that answers a command: it has one of the two.
type answer struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// Dial connects to the QMP socket at path and leaves the connection ready for
// commands. While another client is connected it waits for its turn: until ctx
// ends, for 30 seconds if ctx has no deadline.
func Dial(ctx context.Context, path string) (*Client, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	conn, err := dialUnix(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("connect to the QMP socket: %w", err)
	}
	c := &Client{
		conn: conn, events: make(chan Event, maxEvents), done: make(chan struct{}),
		waiting: map[uint64]chan message{},
	}
	if err := c.negotiate(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("QMP at %s: %w", path, err)
	}
	return c, nil
}

// negotiate reads the greeting and leaves the negotiation mode.
func (c *Client) negotiate(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	messages := newReader(c.conn)
	greeting, err := messages.next()
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("no greeting: %w", ctx.Err())
		}
		return err
	}
	if greeting.Greeting == nil {
		return fmt.Errorf("%w: no greeting", ErrProtocol)
	}
	if !stop() {
		return ctx.Err()
	}
	go c.read(messages)
	return c.Execute(ctx, "qmp_capabilities", nil, nil)
}

// bounded gives a context that has no deadline one.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, answerTimeout)
}

// Execute has QEMU execute a command. args become its arguments, unless they
// are nil; the answer is stored in out, unless that is nil. It waits for the
// answer until ctx ends, for 30 seconds if ctx has no deadline. A refusal is an
// [Error]. Any other error ends the connection; QEMU may still execute the
// command.
func (c *Client) Execute(ctx context.Context, command string, args, out any) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	answer := make(chan message, 1)
	if err := c.send(ctx, command, args, answer); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	select {
	case m := <-answer:
		return c.result(m, command, out)
	case <-c.done:
	case <-ctx.Done():
		// An answer that is late cannot be told from one that never comes.
		c.end(ctx.Err())
	}
	select {
	case m := <-answer: // it came before the end
		return c.result(m, command, out)
	default:
		return fmt.Errorf("%s: %w", command, c.reason())
	}
}

// result stores an answer in out. One that is not as it should be ends the connection.
func (c *Client) result(m message, command string, out any) error {
	err := m.result(command, out)
	if errors.Is(err, ErrProtocol) {
		c.end(err)
	}
	return err
}

func (c *Client) send(ctx context.Context, command string, args any, answer chan message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.lastID++
	id := c.lastID
	line, err := json.Marshal(request{command, args, &id})
	if err != nil {
		return err
	}
	c.waiting[id] = answer
	// A QEMU that does not read lets the write wait.
	stop := context.AfterFunc(ctx, func() { c.conn.SetWriteDeadline(time.Unix(1, 0)) })
	_, err = c.conn.Write(append(line, '\n'))
	switch {
	case !stop():
		err = ctx.Err()
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		err = ErrClosed
	}
	if err != nil {
		c.endLocked(err)
	}
	return err
}

// clip bounds and escapes QEMU's words.
func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	return escape.Line(s)
}

// Events returns the events since the connection was made. The channel is
// closed when the connection has ended. Events that nobody takes are dropped,
// all but the first 64.
func (c *Client) Events() <-chan Event { return c.events }

// Close ends the connection. QEMU goes on.
func (c *Client) Close() error {
	c.end(ErrClosed)
	return nil
}

func (c *Client) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(err)
}

func (c *Client) endLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.conn.Close()
	close(c.done)
}

// reason says why the connection has ended.
func (c *Client) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// read hands out what QEMU sends until the connection ends.
func (c *Client) read(messages *reader) {
	defer close(c.events)
	for {
		m, err := messages.next()
		if err == nil {
			err = c.deliver(m)
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

func (c *Client) deliver(m message) error {
	if m.Event != "" {
		select {
		case c.events <- Event{Name: m.Event, Data: m.Data}:
		default:
		}
		return nil
	}
	if m.ID == nil {
		return fmt.Errorf("%w: an answer without an id", ErrProtocol)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	answer, ok := c.waiting[*m.ID]
	if !ok {
		return fmt.Errorf("%w: an answer to nothing that was asked", ErrProtocol)
	}
	delete(c.waiting, *m.ID)
	answer <- m
	return nil
}
