package nbd_test

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/drydock-vm/drydock/disk"
)

// asked is a request that was said, and how far it is answered.
type asked struct {
	flags, cmd uint16
	off        uint64
	length     uint32
	want       uint32 // the error
	next       uint64 // what of a read is still missing
	done       bool
}

// transmission compares the replies with the requests. Where the client broke the
// protocol they may be incomplete.
func (j *judge) transmission(d *memDisk) {
	requests, proper := j.requests(d)
	if requests == nil {
		return
	}
	r := bytes.NewReader(j.heard)
	j.heard = nil
	for {
		c, err := readChunk(r, func(cookie uint64) int {
			if q := requests[cookie]; q != nil && q.cmd == cmdRead {
				return int(q.length)
			}
			return 0
		})
		if err == io.EOF {
			break
		}
		if err != nil {
			j.t.Fatal(err)
		}
		q := requests[c.cookie]
		if q == nil || q.done || c.simple == j.structured {
			j.t.Fatalf("a reply with cookie %#x to %+v", c.cookie, q)
		}
		q.done = c.done
		j.reply(d, q, &c)
	}
	for cookie, q := range requests {
		if proper && !q.done {
			j.t.Errorf("request %#x has no reply: %+v", cookie, q)
		}
	}
}

// requests takes what was said apart. It returns nil where nothing can be said
// about the replies, since a cookie is there twice.
func (j *judge) requests(d *memDisk) (list map[uint64]*asked, proper bool) {
	list = make(map[uint64]*asked)
	for {
		if len(j.said) == 0 {
			return list, true
		}
		b := j.take(28)
		if b == nil || string(b[:4]) != "\x25\x60\x95\x13" {
			return list, false
		}
		q := &asked{
			flags: binary.BigEndian.Uint16(b[4:]), cmd: binary.BigEndian.Uint16(b[6:]),
			off: binary.BigEndian.Uint64(b[16:]), length: binary.BigEndian.Uint32(b[24:]),
		}
		q.next = q.off
		q.want = j.verdict(d, q)
		switch cookie := binary.BigEndian.Uint64(b[8:]); {
		case q.cmd == cmdDisc:
			return list, true
		case q.cmd == cmdWrite && q.length > 0 && (q.length > 32*mib || j.take(int(q.length)) == nil):
			return list, false
		case list[cookie] != nil:
			j.heard = nil
			return nil, false
		default:
			list[cookie] = q
		}
	}
}

// verdict is the error that a request must be answered with.
func (j *judge) verdict(d *memDisk, q *asked) uint32 {
	allowed := map[uint16]uint16{cmdRead: 0, cmdCache: 0, cmdStatus: flagReqOne}
	if j.structured {
		allowed[cmdRead] = flagDF
	}
	flags, known := allowed[q.cmd]
	switch {
	case q.cmd == cmdWrite || q.cmd == cmdTrim || q.cmd == cmdZeroes || q.cmd == cmdResize:
		return eperm
	case !known, q.flags&^flags != 0, q.length == 0, q.off >= uint64(d.Size()), uint64(q.length) > uint64(d.Size())-q.off:
		return einval
	case q.cmd == cmdStatus && j.status != d:
		return einval
	}
	return 0
}

// reply judges one chunk of the reply to q.
func (j *judge) reply(d *memDisk, q *asked, c *chunk) {
	end := q.off + uint64(q.length)
	switch {
	case c.err != q.want:
		j.t.Errorf("%+v: error %d", q, c.err)
	case c.err != 0, q.cmd == cmdCache && len(c.payload) == 0:
	case q.cmd == cmdRead && (c.simple || c.kind == 1 || c.kind == 2):
		if c.simple {
			c.offset = q.off
		}
		content := append(c.payload, make([]byte, c.zeros)...)
		if c.offset != q.next || uint64(len(content)) > end-q.next || !bytes.Equal(content, d.content[q.next:][:len(content)]) {
			j.t.Fatalf("%+v: other content at %d", q, c.offset)
		}
		q.next += uint64(len(content))
		if c.done != (q.next == end) || q.flags&flagDF != 0 && !c.done {
			j.t.Errorf("%+v: the reply ends at %d", q, q.next)
		}
	case q.cmd == cmdStatus && c.kind == 5 && c.done:
		j.extents(d, q, c.payload)
	default:
		j.t.Errorf("%+v: a chunk of type %d", q, c.kind)
	}
}

// extents judges a block status.
func (j *judge) extents(d *memDisk, q *asked, list []byte) {
	var want []byte
	_ = d.Extents(int64(q.off), int64(q.length), func(e disk.Extent) error {
		state := map[disk.ExtentKind]uint32{disk.ExtentData: 0, disk.ExtentZero: 2, disk.ExtentHole: 3}[e.Kind]
		want = append(want, join(uint32(e.Length), state)...)
		return nil
	})
	if q.flags&flagReqOne != 0 {
		want = want[:8]
	}
	if !bytes.Equal(list, want) {
		j.t.Errorf("%+v: extents % x, want % x", q, list, want)
	}
}
