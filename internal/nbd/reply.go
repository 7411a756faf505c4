package nbd

import (
	"context"
	"encoding/binary"
	"math/bits"
	"strings"
	"sync"

	"github.com/drydock-vm/drydock/internal/escape"
)

// headroom is how far content lies from the start of a buffer, in bytes. There
// is room for a header before it, and the content begins on a page, which the
// kernel copies faster.
const headroom = 4096

// buffer is memory for a reply: headroom, and room for content.
type buffer struct{ memory []byte }

// buffers keeps the buffers that are not in use, those for chunkSize<<i bytes in
// buffers[i].
var buffers [bufferSizes]sync.Pool

// bufferSizes is for sizes up to maxRequest.
const bufferSizes = 8

// buffer returns a buffer for n bytes of content, at most [maxRequest]. It waits
// until the connection has few enough.
func (t *transmission) buffer(n int) *buffer {
	class := bits.Len(uint(n-1) / chunkSize)
	size := chunkSize<<class + headroom
	// It fails only when its context ends. Whoever has a buffer gives it back
	// at the latest when the connection ends.
	_ = t.memory.Acquire(context.Background(), int64(size))
	b, _ := buffers[class].Get().(*buffer)
	if b == nil {
		b = &buffer{memory: make([]byte, size)}
	}
	return b
}

func (t *transmission) release(b *buffer) {
	t.memory.Release(int64(len(b.memory)))
	buffers[bits.Len(uint(len(b.memory)-headroom-1)/chunkSize)].Put(b)
}

// appendChunk appends the header of a chunk that is not the last.
func appendChunk(b []byte, kind uint16, cookie uint64, length int) []byte {
	b = binary.BigEndian.AppendUint32(b, magicStructured)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint64(b, cookie)
	return binary.BigEndian.AppendUint32(b, uint32(length))
}

// finish makes the chunk whose header is at the start of b the last one.
func finish(b []byte) { binary.BigEndian.PutUint16(b[4:], chunkDone) }

// appendSimple appends a simple reply without content.
func appendSimple(b []byte, cookie uint64, e errno) []byte {
	b = binary.BigEndian.AppendUint32(b, magicSimple)
	b = binary.BigEndian.AppendUint32(b, uint32(e))
	return binary.BigEndian.AppendUint64(b, cookie)
}

// sendError answers a request with an error, and with its text if the client can
// have one.
func (t *transmission) sendError(r request, e errno, text string) {
	if !t.structured {
		t.send(appendSimple(nil, r.cookie, e))
		return
	}
	text = message(text)
	b := appendChunk(nil, chunkError, r.cookie, 6+len(text))
	finish(b)
	t.send(appendError(b, e, text))
}

func appendError(b []byte, e errno, text string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(e))
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...)
}

// message makes a text fit: clients print it as it is.
func message(text string) string {
	text = escape.Line(text)
	return strings.ToValidUTF8(text[:min(len(text), maxMessage)], "")
}

// sendDone answers a request that has no content with success.
func (t *transmission) sendDone(r request) {
	if !t.structured {
		t.send(appendSimple(nil, r.cookie, 0))
		return
	}
	b := appendChunk(nil, chunkNone, r.cookie, 0)
	finish(b)
	t.send(b)
}
