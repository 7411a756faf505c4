package nbd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// fields reads what an option's data consists of. After a read beyond the end,
// bad is set and all is zero.
type fields struct {
	data []byte
	bad  bool
}

func (f *fields) bytes(n uint32) []byte {
	if f.bad || uint64(n) > uint64(len(f.data)) {
		f.bad = true
		return nil
	}
	b := f.data[:n]
	f.data = f.data[n:]
	return b
}

func (f *fields) uint32() uint32 {
	if b := f.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (f *fields) uint16() uint16 {
	if b := f.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// text reads a length and a string.
func (f *fields) text() []byte {
	b := f.bytes(f.uint32())
	if len(b) > maxName || !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		f.bad = true
	}
	return b
}

// end reports whether the data was what was read, and no more.
func (f *fields) end() bool { return !f.bad && len(f.data) == 0 }

// find returns the export of a name, or nil.
func (s *session) find(name []byte) *Export {
	for i := range s.exports {
		if s.exports[i].Name == string(name) {
			return &s.exports[i]
		}
	}
	if len(name) == 0 {
		return &s.exports[0]
	}
	return nil
}

// transmissionFlags says what the client can do after this handshake.
func (s *session) transmissionFlags() uint16 {
	flags := uint16(transHasFlags | transReadOnly | transMultiConn | transCache)
	if s.structured {
		flags |= transDF
	}
	return flags
}

// exportName is the oldest way to choose an export. It has no way to refuse one
// but to hang up. The answer is
//
//	 0    8  size
//	 8    2  transmission flags
//	10  124  zeros, unless the client does without
func (s *session) exportName(name []byte) (*Export, error) {
	export := s.find(name)
	if len(name) > maxName || export == nil {
		return nil, fmt.Errorf("handshake: there is no export %.100q", name)
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(export.Disk.Size()))
	b = binary.BigEndian.AppendUint16(b, s.transmissionFlags())
	if !s.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	_, err := s.conn.Write(b)
	return export, err
}

// info answers optInfo and optGo, whose data is
//
//	0  4  length of the name
//	4     name
//	   2  how many kinds of information the client would like
//	   2  each of them
//
// It returns the export when the client shall have it.
func (s *session) info(opt option, data []byte) (*Export, error) {
	f := fields{data: data}
	name := f.text()
	wanted := make(map[uint16]bool)
	for range f.uint16() {
		wanted[f.uint16()] = true
	}
	if !f.end() {
		return nil, s.refuse(opt, repErrInvalid, "the lengths in the option contradict each other")
	}
	export := s.find(name)
	if export == nil {
		return nil, s.refuse(opt, repErrUnknown, "there is no such export")
	}
	answers := [][]byte{s.exportInfo(export), blockSizeInfo()}
	if wanted[infoName] {
		answers = append(answers, append(binary.BigEndian.AppendUint16(nil, infoName), export.Name...))
	}
	if wanted[infoDescription] && export.Description != "" {
		answers = append(answers, append(binary.BigEndian.AppendUint16(nil, infoDescription), export.Description...))
	}
	for _, a := range answers {
		if err := s.reply(opt, repInfo, a); err != nil {
			return nil, err
		}
	}
	return export, s.reply(opt, repAck, nil)
}

// exportInfo is 2 bytes of infoExport, 8 of size, and 2 of transmission flags.
func (s *session) exportInfo(e *Export) []byte {
	b := binary.BigEndian.AppendUint16(nil, infoExport)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Disk.Size()))
	return binary.BigEndian.AppendUint16(b, s.transmissionFlags())
}

// blockSizeInfo is 2 bytes of infoBlockSize, and in 4 bytes each the least, the
// preferred and the largest size of a request. It is sent to all clients, so
// that they know the largest.
func blockSizeInfo() []byte {
	b := binary.BigEndian.AppendUint16(nil, infoBlockSize)
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint32(b, preferredBlock)
	return binary.BigEndian.AppendUint32(b, maxRequest)
}

// list answers with an entry for each export: 4 bytes of the name's length, the
// name, and the description.
func (s *session) list(data []byte) error {
	if len(data) != 0 {
		return s.refuse(optList, repErrInvalid, "this option has no data")
	}
	for _, e := range s.exports {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(e.Name)))
		if err := s.reply(optList, repServer, append(append(b, e.Name...), e.Description...)); err != nil {
			return err
		}
	}
	return s.reply(optList, repAck, nil)
}

func (s *session) structuredReply(data []byte) error {
	if len(data) != 0 {
		return s.refuse(optStructuredReply, repErrInvalid, "this option has no data")
	}
	s.structured = true
	return s.reply(optStructuredReply, repAck, nil)
}

// metaContext answers optListMetaContext and optSetMetaContext, whose data is
//
//	0  4  length of the export's name
//	4     name
//	   4  how many queries follow
//	      for each: 4 bytes of length, and the query
//
// An answer is 4 bytes of the context's ID, and its name.
func (s *session) metaContext(opt option, data []byte) error {
	if opt == optSetMetaContext {
		s.context = nil // each attempt replaces the one before, even if it fails
	}
	f := fields{data: data}
	name := f.text()
	queries, known := f.uint32(), false
	all := opt == optListMetaContext && queries == 0
	for i := uint32(0); i < queries && !f.bad; i++ {
		switch string(f.text()) {
		case contextAllocation:
			known = true
		case contextNamespace:
			known = known || opt == optListMetaContext
		}
	}
	switch export := s.find(name); {
	case !f.end():
		return s.refuse(opt, repErrInvalid, "the lengths in the option contradict each other, or a text is none")
	case !s.structured:
		return s.refuse(opt, repErrInvalid, "structured replies must be agreed on first")
	case export == nil:
		return s.refuse(opt, repErrUnknown, "there is no such export")
	case !known && !all:
	default:
		if opt == optSetMetaContext {
			s.context = export
		}
		b := binary.BigEndian.AppendUint32(nil, contextID)
		if err := s.reply(opt, repMetaContext, append(b, contextAllocation...)); err != nil {
			return err
		}
	}
	return s.reply(opt, repAck, nil)
}
