package nbd_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// The numbers of the protocol, as proto.md has them: the tests do not take them
// from the code.
const (
	optExportName, optAbort, optList, optStartTLS, optInfo, optGo = 1, 2, 3, 5, 6, 7
	optStructured, optListMeta, optSetMeta, optExtended           = 8, 9, 10, 11

	repAck, repServer, repInfo, repMeta         = 1, 2, 3, 4
	repUnsup, repInvalid, repUnknown, repTooBig = 1<<31 + 1, 1<<31 + 3, 1<<31 + 6, 1<<31 + 9

	cmdRead, cmdWrite, cmdDisc, cmdFlush, cmdTrim, cmdCache, cmdZeroes, cmdStatus, cmdResize = 0, 1, 2, 3, 4, 5, 6, 7, 8

	flagFUA, flagNoHole, flagDF, flagReqOne, flagFastZero = 1, 2, 4, 8, 16

	eperm, eio, einval = 1, 5, 22
)

// client speaks NBD by hand, and may say anything.
type client struct {
	t testing.TB
	net.Conn
}

// join makes bytes of numbers, by their size, and of strings.
func join(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case uint16:
			b = binary.BigEndian.AppendUint16(b, p)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, p)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, p)
		case string:
			b = append(b, p...)
		case []byte:
			b = append(b, p...)
		default:
			panic(fmt.Sprintf("%T", p))
		}
	}
	return b
}

// text is a length and a string.
func text(s string) []byte { return join(uint32(len(s)), s) }

func optionBytes(opt uint32, data []byte) []byte {
	return join("IHAVEOPT", opt, uint32(len(data)), data)
}

func requestBytes(flags, cmd uint16, cookie, off uint64, length uint32) []byte {
	return join(uint32(0x25609513), flags, cmd, cookie, off, length)
}

// goBytes chooses an export.
func goBytes(name string) []byte { return optionBytes(optGo, join(text(name), uint16(0))) }

// connect connects, and answers the greeting with flags.
func (s *server) connect(t testing.TB, flags uint32) *client {
	t.Helper()
	c := &client{t, s.dial(t)}
	if got := string(c.read(18)); got != "NBDMAGICIHAVEOPT\x00\x03" {
		t.Fatalf("greeting %q", got)
	}
	c.say(join(flags))
	return c
}

// begin connects and gets to the transmission phase of an export.
func (s *server) begin(t testing.TB, export string, structured bool) *client {
	t.Helper()
	c := s.connect(t, 3)
	if structured {
		c.ask(optStructured, nil, repAck)
		c.ask(optSetMeta, join(text(export), uint32(1), text("base:allocation")), repMeta, repAck)
	}
	c.ask(optGo, join(text(export), uint16(0)), repInfo, repInfo, repAck)
	return c
}

func (c *client) say(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

func (c *client) read(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		c.t.Fatalf("read %d bytes: %v", n, err)
	}
	return b
}

// closed checks that the server has nothing more to say.
func (c *client) closed() {
	c.t.Helper()
	var netErr net.Error
	b, err := io.ReadAll(c)
	if len(b) > 0 || errors.As(err, &netErr) && netErr.Timeout() {
		c.t.Errorf("the connection goes on: %q, %v", b, err)
	}
}

// ask sends an option and checks the types of the answers; it returns the data of
// the first.
func (c *client) ask(opt uint32, data []byte, want ...uint32) []byte {
	c.t.Helper()
	c.say(optionBytes(opt, data))
	var first []byte
	for i, w := range want {
		kind, data, err := readOptionReply(c, opt)
		if err != nil || kind != w {
			c.t.Fatalf("option %d: answer %d is %#x %q, %v, want %#x", opt, i, kind, data, err, w)
		}
		if i == 0 {
			first = data
		}
	}
	return first
}

func readOptionReply(r io.Reader, opt uint32) (kind uint32, data []byte, err error) {
	var b [20]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, nil, err
	}
	kind = binary.BigEndian.Uint32(b[12:])
	if string(b[:8]) != "\x00\x03\xe8\x89\x04\x55\x65\xa9" || binary.BigEndian.Uint32(b[8:]) != opt {
		return 0, nil, fmt.Errorf("option %d: answer % x", opt, b)
	}
	data = make([]byte, min(binary.BigEndian.Uint32(b[16:]), 1<<20))
	_, err = io.ReadFull(r, data)
	return kind, data, err
}

// chunk is a part of a reply, or a simple one.
type chunk struct {
	simple  bool
	done    bool
	kind    uint16
	cookie  uint64
	err     uint32
	offset  uint64
	payload []byte // content, extents, or the text of an error
	zeros   uint32
}

// readChunk reads what comes next. content is how much follows the header of a
// simple reply without an error.
func readChunk(r io.Reader, content func(cookie uint64) int) (chunk, error) {
	var head [20]byte
	if _, err := io.ReadFull(r, head[:16]); err != nil {
		return chunk{}, err
	}
	c := chunk{cookie: binary.BigEndian.Uint64(head[8:])}
	switch binary.BigEndian.Uint32(head[:]) {
	case 0x67446698:
		c.simple, c.done, c.err = true, true, binary.BigEndian.Uint32(head[4:])
		if c.err == 0 {
			c.payload = make([]byte, content(c.cookie))
		}
		_, err := io.ReadFull(r, c.payload)
		return c, noEOF(err)
	case 0x668e33ef:
	default:
		return c, fmt.Errorf("a reply begins with % x", head)
	}
	if _, err := io.ReadFull(r, head[16:]); err != nil {
		return c, noEOF(err)
	}
	c.done, c.kind = binary.BigEndian.Uint16(head[4:]) == 1, binary.BigEndian.Uint16(head[6:])
	length := binary.BigEndian.Uint32(head[16:])
	if length > 33<<20 {
		return c, fmt.Errorf("a chunk of %d bytes", length)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return c, noEOF(err)
	}
	return c, c.parse(body)
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parse takes the body of a structured chunk apart, and refuses what is not as
// long as it must be.
func (c *chunk) parse(body []byte) error {
	n := len(body)
	bad := fmt.Errorf("a chunk of type %d and %d bytes", c.kind, n)
	switch {
	case c.kind == 0 && n == 0 && c.done:
	case c.kind == 1 && n > 8:
		c.offset, c.payload = binary.BigEndian.Uint64(body), body[8:]
	case c.kind == 2 && n == 12:
		c.offset, c.zeros = binary.BigEndian.Uint64(body), binary.BigEndian.Uint32(body[8:])
	case c.kind == 5 && n >= 12 && n%8 == 4:
		c.payload = body[4:]
	case (c.kind == 0x8001 || c.kind == 0x8002) && n > 6:
		c.err = binary.BigEndian.Uint32(body)
		length := int(binary.BigEndian.Uint16(body[4:]))
		if c.kind == 0x8002 {
			length += 8
			c.offset = binary.BigEndian.Uint64(body[n-8:])
		}
		if n != 6+length || strings.ContainsRune(string(body[6:]), 0x1b) {
			return bad
		}
		c.payload = body[6:]
	default:
		return bad
	}
	return nil
}

// expect sends a request, and returns the one chunk of the reply, that must have
// the error want.
func (c *client) expect(want uint32, flags, cmd uint16, off uint64, length uint32) chunk {
	c.t.Helper()
	cookie := off ^ uint64(length)<<32 ^ uint64(cmd)
	c.say(requestBytes(flags, cmd, cookie, off, length))
	if cmd == cmdWrite {
		c.say(make([]byte, length))
	}
	got, err := readChunk(c, func(uint64) int { return int(length) })
	if err != nil || got.err != want || got.cookie != cookie || !got.done {
		c.t.Fatalf("command %d, flags %#x, %d bytes at %d: %+v, %v, want error %d", cmd, flags, length, off, got, err, want)
	}
	return got
}
