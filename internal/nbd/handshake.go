package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// session is one connection.
type session struct {
	conn    net.Conn
	in      *bufio.Reader
	exports []Export
	report  func(error)

	// What was agreed on in the handshake, which one goroutine does.
	structured bool
	noZeroes   bool
	context    *Export // for which base:allocation was agreed on, or nil
}

// inputBuffer holds a few hundred requests, in bytes.
const inputBuffer = 16 << 10

// serveConn is the whole life of a connection. It returns nil when the client
// ended it as the protocol wants, or hung up between requests.
func serveConn(conn net.Conn, exports []Export, report func(error)) error {
	s := &session{conn: conn, in: bufio.NewReaderSize(conn, inputBuffer), exports: exports, report: report}
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	export, err := s.handshake()
	if err != nil || export == nil {
		return leaving(err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	return newTransmission(s, export).run()
}

// handshake returns the export that the client chose, or nil if it left.
func (s *session) handshake() (*Export, error) {
	greeting := binary.BigEndian.AppendUint64(nil, magicServer)
	greeting = binary.BigEndian.AppendUint64(greeting, magicOption)
	greeting = binary.BigEndian.AppendUint16(greeting, flagFixedNewstyle|flagNoZeroes)
	if _, err := s.conn.Write(greeting); err != nil {
		return nil, err
	}
	var flags [4]byte
	if _, err := io.ReadFull(s.in, flags[:]); err != nil {
		return nil, err
	}
	f := binary.BigEndian.Uint32(flags[:])
	if f&flagFixedNewstyle == 0 || f&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return nil, fmt.Errorf("handshake: client flags %#x: fixed newstyle is needed, and nothing new", f)
	}
	s.noZeroes = f&flagNoZeroes != 0
	for range maxOptions {
		opt, data, err := s.readOption()
		if err != nil {
			return nil, err
		}
		export, done, err := s.answer(opt, data)
		if err != nil || done {
			return export, err
		}
	}
	return nil, fmt.Errorf("handshake: more than %d options", maxOptions)
}

// leaving makes nothing of the error of a client that hung up, other than in the
// middle of what it had to say.
func leaving(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return err
}

// noEOF makes an end of the input in the middle of a thing the error that it is.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readOption reads the next option:
//
//	 0  8  magicOption
//	 8  4  option
//	12  4  length of the data
//	16     data
func (s *session) readOption() (option, []byte, error) {
	var head [16]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return 0, nil, err
	}
	if magic := binary.BigEndian.Uint64(head[:]); magic != magicOption {
		return 0, nil, fmt.Errorf("handshake: an option begins with %#x", magic)
	}
	opt := option(binary.BigEndian.Uint32(head[8:]))
	length := binary.BigEndian.Uint32(head[12:])
	if length > maxOption {
		detail := fmt.Sprintf("option %d has %d bytes, at most %d are possible", opt, length, maxOption)
		return 0, nil, errors.Join(errors.New("handshake: "+detail), s.reply(opt, repErrTooBig, []byte(detail)))
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(s.in, data); err != nil {
		return 0, nil, noEOF(err)
	}
	return opt, data, nil
}

// answer answers an option. It reports the export when the client has chosen
// one, and that the handshake is over.
func (s *session) answer(opt option, data []byte) (export *Export, done bool, err error) {
	switch opt {
	case optExportName:
		export, err = s.exportName(data)
		return export, true, err
	case optAbort:
		// The client may be gone already.
		_ = s.reply(opt, repAck, nil)
		return nil, true, nil
	case optGo:
		export, err = s.info(opt, data)
		return export, export != nil, err
	case optInfo:
		_, err = s.info(opt, data)
		return nil, false, err
	case optList:
		return nil, false, s.list(data)
	case optStructuredReply:
		return nil, false, s.structuredReply(data)
	case optListMetaContext, optSetMetaContext:
		return nil, false, s.metaContext(opt, data)
	}
	return nil, false, s.refuse(opt, repErrUnsupported, fmt.Sprintf("option %d is not supported", opt))
}

// reply sends one answer to an option:
//
//	 0  8  magicReply
//	 8  4  option
//	12  4  type
//	16  4  length of the data
//	20     data
func (s *session) reply(opt option, kind optionReply, data []byte) error {
	b := make([]byte, 0, 20+len(data))
	b = binary.BigEndian.AppendUint64(b, magicReply)
	b = binary.BigEndian.AppendUint32(b, uint32(opt))
	b = binary.BigEndian.AppendUint32(b, uint32(kind))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := s.conn.Write(append(b, data...))
	return err
}

// refuse answers an option with an error, for which the client has a text.
func (s *session) refuse(opt option, kind optionReply, text string) error {
	return s.reply(opt, kind, []byte(text))
}
