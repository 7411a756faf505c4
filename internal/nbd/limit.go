package nbd

import "time"

// The limits on what a client may ask for, and on what it may cost.
const (
	// maxRequest bounds what one request reads or prefetches, in bytes. It is
	// the size that every client keeps to by itself (section "Size
	// constraints"), and told to those that ask.
	maxRequest = 32 << 20

	// maxOption bounds the data of an option, in bytes: the longest name and
	// as many queries or requests for information as a client could mean.
	maxOption = 64 << 10
	// maxName bounds names and other strings: 4096 bytes by the protocol
	// (section "Values").
	maxName = 4096
	// maxOptions bounds the options of a connection. A client that looks at
	// each export of a long list needs a few for each.
	maxOptions = 4096
	// handshakeTimeout bounds the whole handshake. People who type options
	// into nbdsh reconnect.
	handshakeTimeout = 2 * time.Minute

	// maxInFlight bounds the requests of a connection that are worked on.
	// Further ones wait in the socket. It keeps a disk that seeks busy, and
	// is no more because replies that wait for their turn leave the
	// processor's cache.
	maxInFlight = 8
	// maxBuffered bounds the memory of the replies of a connection, in bytes:
	// one request of the largest size, and small ones beside it.
	maxBuffered = maxRequest + 8<<20

	// stallTimeout is how long a client may take for the rest of a request
	// that it has begun, or for the next megabyte of a reply. It is generous:
	// a client may have to write what it reads to a slow place first. Between
	// requests a client may be silent for ever.
	stallTimeout = 5 * time.Minute

	// defaultConnections is enough for a few clients with the four or so
	// connections that each opens.
	defaultConnections = 32

	// chunkSize is how much content is read at once, in bytes, where a reply
	// may have several chunks. Larger ones leave the processor's cache.
	chunkSize = 256 << 10
	// minHole is the shortest hole, in bytes, that is sent as a hole; the
	// zeros of shorter ones cost less than what the client does for a chunk.
	minHole = 4 << 10

	// preferredBlock is told to clients: a page, in which the host reads.
	preferredBlock = 4096

	// maxStatus bounds the extents of one block status reply, of 8 bytes
	// each. The client asks again for the rest.
	maxStatus = 32 << 10

	// maxMessage bounds the text of an error, in bytes.
	maxMessage = 1024

	// acceptPause is how long to wait when the process has no descriptors
	// left, before the next attempt.
	acceptPause = 100 * time.Millisecond

	// socketBuffer is what is asked for as the socket's send buffer, in
	// bytes: a reply that fits spares switching between client and server in
	// the middle of it. The host may grant less.
	socketBuffer = 2 << 20
)
