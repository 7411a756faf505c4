package qemuimg

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Errors of a header.
var (
	// ErrNotQCOW2: the file is declared as qcow2, and is not.
	ErrNotQCOW2 = errors.New("not a qcow2 image")
	// ErrExternalData: the image keeps its data in another file, that it
	// names itself.
	ErrExternalData = errors.New("the qcow2 image has an external data file, which drydock does not open")
)

// Header is what the head of a qcow2 image says.
type Header struct {
	VirtualSize  int64 // bytes
	ExternalData bool
	Backing      string // what it says that it lies on; hostile
}

// The fields of a qcow2 header (QEMU, docs/interop/qcow2.txt), big-endian:
//
//	offset  size  field
//	     0     4  magic, "QFI\xfb"
//	     4     4  version, 2 or 3
//	     8     8  offset of the name of the backing file, 0 without one
//	    16     4  length of that name, at most 1023 bytes
//	    24     8  virtual size in bytes
//	    72     8  incompatible features (version 3)
const (
	headerSize   = 80
	magic        = 0x514649fb
	featDataFile = 1 << 2
	maxBacking   = 1023
)

// ReadHeader reads the head of the qcow2 image at path.
func ReadHeader(path string) (Header, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return Header{}, fmt.Errorf("read a qcow2 header: %w", err)
	}
	defer f.Close()
	b := make([]byte, headerSize)
	if _, err := io.ReadFull(f, b); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return Header{}, fmt.Errorf("read a qcow2 header: %w", err)
	}
	version := binary.BigEndian.Uint32(b[4:])
	size := int64(binary.BigEndian.Uint64(b[24:]))
	if binary.BigEndian.Uint32(b) != magic || version < 2 || version > 3 || size < 0 {
		return Header{}, fmt.Errorf("%s: %w", path, ErrNotQCOW2)
	}
	h := Header{
		VirtualSize:  size,
		ExternalData: version == 3 && binary.BigEndian.Uint64(b[72:])&featDataFile != 0,
	}
	if at, n := int64(binary.BigEndian.Uint64(b[8:])), binary.BigEndian.Uint32(b[16:]); at != 0 && n > 0 {
		if at < 0 || n > maxBacking {
			return Header{}, fmt.Errorf("%s: %w: the name of its backing file has %d bytes at %d", path, ErrNotQCOW2, n, at)
		}
		name := make([]byte, n)
		if _, err := f.ReadAt(name, at); err != nil {
			return Header{}, fmt.Errorf("%s: read the name of its backing file: %w", path, err)
		}
		h.Backing = string(name)
	}
	return h, nil
}

// qcow2Name names the qcow2 image at path for qemu-img, in a form in which
// neither the format nor a protocol in the name ("nbd:…") is looked for, and in
// which no other file is opened because the image names it.
func qcow2Name(path string) (string, error) {
	header, err := ReadHeader(path)
	if err != nil {
		return "", err
	}
	if header.ExternalData {
		return "", fmt.Errorf("%s: %w", path, ErrExternalData)
	}
	type file struct {
		Driver   string `json:"driver"`
		Filename string `json:"filename"`
	}
	name, err := json.Marshal(struct {
		Driver  string  `json:"driver"`
		Backing *string `json:"backing"` // null: the chain stays closed
		File    file    `json:"file"`
	}{"qcow2", nil, file{"file", path}})
	if err != nil {
		return "", fmt.Errorf("name a qcow2 image: %w", err)
	}
	return "json:" + string(name), nil
}
