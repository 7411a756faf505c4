package nbd

// All numbers of the protocol are big-endian.

// The handshake.
const (
	magicServer = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption = 0x49484156454f5054 // "IHAVEOPT"
	magicReply  = 0x0003e889045565a9 // before each answer to an option

	// The bits that the server offers and those that the client may take up
	// are the same two.
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// option is what a client asks for before it reads.
type option uint32

const (
	optExportName      option = 1
	optAbort           option = 2
	optList            option = 3
	optInfo            option = 6
	optGo              option = 7
	optStructuredReply option = 8
	optListMetaContext option = 9
	optSetMetaContext  option = 10
)

// optionReply is the type of an answer to an option.
type optionReply uint32

const (
	repAck         optionReply = 1
	repServer      optionReply = 2
	repInfo        optionReply = 3
	repMetaContext optionReply = 4

	repErrUnsupported optionReply = 1<<31 + 1
	repErrInvalid     optionReply = 1<<31 + 3
	repErrUnknown     optionReply = 1<<31 + 6
	repErrTooBig      optionReply = 1<<31 + 9
)

// The pieces of information of optInfo and optGo.
const (
	infoExport      = 0
	infoName        = 1
	infoDescription = 2
	infoBlockSize   = 3
)

// Transmission flags: what the server can do with an export.
const (
	transHasFlags  = 1 << 0
	transReadOnly  = 1 << 1
	transDF        = 1 << 7 // only with structured replies
	transMultiConn = 1 << 8
	transCache     = 1 << 10
)

// command is the type of a request in the transmission phase.
type command uint16

const (
	cmdRead        command = 0
	cmdWrite       command = 1
	cmdDisconnect  command = 2
	cmdTrim        command = 4
	cmdCache       command = 5
	cmdWriteZeroes command = 6
	cmdBlockStatus command = 7
	cmdResize      command = 8
)

// Command flags.
const (
	cmdFlagDF     = 1 << 2 // one chunk for the whole content
	cmdFlagReqOne = 1 << 3 // one extent
)

// A request is
//
//	 0  4  magicRequest
//	 4  2  command flags
//	 6  2  command
//	 8  8  cookie, which the reply repeats
//	16  8  offset
//	24  4  length
const (
	magicRequest = 0x25609513
	requestSize  = 28
)

// A simple reply is
//
//	0  4  magicSimple
//	4  4  error
//	8  8  cookie
//
// and the content that was read, when there is no error.
const (
	magicSimple      = 0x67446698
	simpleHeaderSize = 16
)

// A structured reply consists of chunks, the last of which has chunkDone:
//
//	 0  4  magicStructured
//	 4  2  chunk flags
//	 6  2  chunk type
//	 8  8  cookie
//	16  4  length of what follows
//
// What follows is for chunkData an offset of 8 bytes and the content, for
// chunkHole an offset of 8 and a length of 4 bytes, for chunkBlockStatus the
// context's ID of 4 bytes and pairs of length and state of 4 bytes each, for
// chunkError an error of 4 bytes, the length of a message in 2, and the message,
// and for chunkErrorOffset the same and an offset of 8 bytes.
const (
	magicStructured = 0x668e33ef
	chunkHeaderSize = 20
	chunkDone       = 1 << 0

	chunkNone        = 0
	chunkData        = 1
	chunkHole        = 2
	chunkBlockStatus = 5
	chunkError       = 1<<15 + 1
	chunkErrorOffset = 1<<15 + 2

	chunkHoleSize = chunkHeaderSize + 12
	chunkDataSize = chunkHeaderSize + 8 // without the content
)

// contextAllocation is the one metadata context, by its name, and contextID what
// its extents are labelled with.
const (
	contextAllocation = "base:allocation"
	contextNamespace  = "base:"
	contextID         = 1

	stateHole = 1 << 0
	stateZero = 1 << 1
)

// errno is an error of the protocol, numbered as Linux does.
type errno uint32

const (
	errPermission errno = 1  // EPERM
	errIO         errno = 5  // EIO
	errInvalid    errno = 22 // EINVAL
)
