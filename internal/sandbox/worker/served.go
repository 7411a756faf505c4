package worker

import (
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// keptBlocks is how many blocks of [wire.MaxFetch] bytes are kept: 8 MiB. What a
// reader looks at again and again, it keeps itself.
const keptBlocks = 128

// fetcher asks the parent for what no descriptor has.
type fetcher struct {
	socket *os.File

	mu    sync.Mutex // one request is made at a time; guards what follows
	last  uint32     // the id of the last request
	kept  [keptBlocks]block
	frame [wire.HeaderSize + wire.FetchSize]byte
}

// block is a part of a served file that starts at a multiple of [wire.MaxFetch].
type block struct {
	file   uint8
	number int64
	data   []byte // nil: it holds none
}

func newFetcher(descriptor int) (*fetcher, error) {
	// As with the other socket: one that blocks costs fewer wake-ups.
	if err := syscall.SetNonblock(descriptor, false); err != nil {
		return nil, fmt.Errorf("%w: descriptor %d is no socket: %w", errProtocol, descriptor, err)
	}
	return &fetcher{socket: os.NewFile(uintptr(descriptor), "content")}, nil
}

// served is a file that the parent has. It implements [io.ReaderAt].
type served struct {
	parent *fetcher
	file   uint8
	size   int64
}

func (s *served) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		if at < 0 || at >= s.size {
			return n, io.EOF
		}
		k, err := s.parent.read(p[n:], s, at)
		if err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// read copies what the block at off has for p.
func (f *fetcher) read(p []byte, s *served, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	number := off / wire.MaxFetch
	b := &f.kept[number%keptBlocks]
	if b.data == nil || b.file != s.file || b.number != number {
		if err := f.fill(b, s, number); err != nil {
			b.data = nil
			return 0, err
		}
	}
	return copy(p, b.data[off-number*wire.MaxFetch:]), nil
}

// fill asks for a block.
func (f *fetcher) fill(b *block, s *served, number int64) error {
	start := number * wire.MaxFetch
	r := wire.Fetch{File: s.file, Off: start, Length: uint32(min(wire.MaxFetch, s.size-start))}
	f.last++
	wire.PutHeader(f.frame[:], wire.Header{Length: wire.FetchSize, ID: f.last, Code: uint8(wire.OpFetch)})
	if _, err := f.socket.Write(r.Append(f.frame[:wire.HeaderSize])); err != nil {
		return fmt.Errorf("ask for content: %w", err)
	}
	if _, err := io.ReadFull(f.socket, f.frame[:wire.HeaderSize]); err != nil {
		return fmt.Errorf("read content: %w", err)
	}
	h, err := wire.ParseHeader(f.frame[:wire.HeaderSize], wire.MaxFetch)
	if err != nil {
		return fmt.Errorf("%w: %w", errProtocol, err)
	}
	if h.ID != f.last || h.Code == wire.StatusOK && h.Length != r.Length {
		return fmt.Errorf("%w: content of %d bytes for request %d instead of %d for %d", errProtocol, h.Length, h.ID, r.Length, f.last)
	}
	if cap(b.data) < wire.MaxFetch {
		b.data = make([]byte, wire.MaxFetch)
	}
	b.file, b.number, b.data = s.file, number, b.data[:h.Length]
	if _, err := io.ReadFull(f.socket, b.data); err != nil {
		return fmt.Errorf("read content: %w", err)
	}
	if h.Code == wire.StatusOK {
		return nil
	}
	told, err := wire.DecodeError(b.data)
	if err != nil {
		return fmt.Errorf("%w: %w", errProtocol, err)
	}
	return told
}
