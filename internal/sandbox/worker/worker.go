// Package worker is the process that reads a guest's disk: it confines itself,
// and then answers the requests of package wire until its socket closes.
//
// It gets a socket as descriptor [Socket], the memory that it shares with the
// parent as [Memory], and the images of the disks, topmost first, as descriptors
// from [FirstDisk] on; behind them, if a disk is no file, a socket to ask for its
// bytes. All that a guest wrote is parsed here and nowhere else. It holds no secret, can reach nothing, and is believed
// by nobody; so it does not defend itself against its requests beyond decoding
// them strictly, and ends when one is malformed.
package worker

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/drydock-vm/drydock/internal/garbage"
	"github.com/drydock-vm/drydock/internal/sandbox/confine"
	"github.com/drydock-vm/drydock/internal/sandbox/wire"
)

// The descriptors that a worker is given.
const (
	Socket    = 3
	Memory    = 4
	FirstDisk = 5
)

// The exit codes of a worker.
const (
	exitDone  = 0 // the parent closed the socket
	exitWrong = 1 // the parent, or this process, broke the protocol
)

// maxThreads bounds how many requests are worked on at the same moment.
const maxThreads = 4

// Program is a worker. The zero value is the one that drydock ships; tests
// change it to look at the confinement from inside.
type Program struct {
	// Confine replaces [confine.Apply].
	Confine func(confine.Options) []wire.Measure
	// Test answers requests from [wire.OpTest] on.
	Test func(op wire.Op, payload []byte) ([]byte, error)
}

// Main serves requests until the socket closes, and returns the exit code. What
// it writes to standard error is part of the parent's error report.
func (p Program) Main() int {
	if p.Confine == nil {
		p.Confine = confine.Apply
	}
	runtime.GOMAXPROCS(min(runtime.NumCPU(), maxThreads))
	garbage.Bound(garbage.ReaderSpare)
	// The runtime opens its poller for its first timer. It must do so now.
	time.Sleep(time.Microsecond)
	// A socket that blocks costs fewer wake-ups than the poller.
	if err := syscall.SetNonblock(Socket, false); err != nil {
		fmt.Fprintln(os.Stderr, "drydock worker: descriptor 3 is no socket:", err)
		return exitWrong
	}
	memory, err := syscall.Mmap(Memory, 0, wire.Slots*wire.SlotSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		fmt.Fprintln(os.Stderr, "drydock worker: map the shared memory:", err)
		return exitWrong
	}
	_ = syscall.Close(Memory) // the mapping stays
	s := &server{
		memory:  memory,
		program: p,
		socket:  os.NewFile(Socket, "socket"),
		slots:   make(chan struct{}, wire.MaxInFlight),
		buffers: make(chan []byte, maxThreads),
	}
	if err := s.serve(); err != nil {
		fmt.Fprintln(os.Stderr, "drydock worker:", err)
		return exitWrong
	}
	return exitDone
}

// server answers requests.
type server struct {
	program Program
	socket  *os.File
	memory  []byte        // shared with the parent
	slots   chan struct{} // holds a token for each request in flight
	buffers chan []byte   // those that are not in use

	images []*os.File
	parent *fetcher // nil where no image is served
	disks  *reader  // set by Open, before any request that needs it

	writing sync.Mutex // one answer is written at a time
}

// errProtocol says that the parent did what no parent does.
var errProtocol = errors.New("the parent broke the protocol")

// serve reads requests and answers them in turn, so everything after Setup and
// Open finds the process confined and the disk open. Reads of content, which may
// have to be decompressed, are answered at the same time instead; for the others
// it would cost more to wake a thread than it saves.
func (s *server) serve() error {
	in := bufio.NewReaderSize(s.socket, wire.MaxRequest)
	var head [wire.HeaderSize]byte
	for setUp := false; ; {
		if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		h, err := wire.ParseHeader(head[:], wire.MaxRequest)
		if err != nil {
			return fmt.Errorf("%w: %w", errProtocol, err)
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(in, payload); err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		op := wire.Op(h.Code)
		switch {
		case (op == wire.OpSetup) == setUp:
			return fmt.Errorf("%w: request %d, already set up: %v", errProtocol, op, setUp)
		case op == wire.OpRead || op == wire.OpReadMany:
			s.dispatch(op, h.ID, payload)
		default:
			err = s.answer(op, h.ID, payload)
			setUp = true
		}
		if err != nil {
			return err
		}
	}
}

// dispatch answers a request in a goroutine of its own, as soon as fewer than
// [wire.MaxInFlight] others are being answered.
func (s *server) dispatch(op wire.Op, id uint32, payload []byte) {
	s.slots <- struct{}{}
	go func() {
		defer func() { <-s.slots }()
		if err := s.answer(op, id, payload); err != nil {
			fmt.Fprintln(os.Stderr, "drydock worker:", err)
			os.Exit(exitWrong)
		}
	}()
}

// answer answers one request. The error is one of the conversation; what goes
// wrong with the disk is an answer.
func (s *server) answer(op wire.Op, id uint32, payload []byte) error {
	buf := s.buffer()
	defer s.release(buf)
	b := buf[:wire.HeaderSize]

	status := uint8(wire.StatusOK)
	out, err := s.handle(op, payload, b)
	switch {
	case errors.Is(err, errProtocol):
		return err
	case err != nil:
		status = wire.StatusError
		out = wire.AppendError(b, err)
	}
	n := len(out) - wire.HeaderSize
	if n > wire.MaxAnswer {
		return fmt.Errorf("the answer to request %d has %d bytes", op, n)
	}
	wire.PutHeader(out, wire.Header{Length: uint32(n), ID: id, Code: status})

	s.writing.Lock()
	defer s.writing.Unlock()
	if _, err := s.socket.Write(out); err != nil {
		if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
			return nil // the parent has left; the read of the next request sees it too
		}
		return fmt.Errorf("write an answer: %w", err)
	}
	return nil
}

// buffer returns room for an answer, so that content is read to where it is sent
// from. What was used before is taken first: a sync.Pool would drop it at each
// garbage collection, and this much is not cheap to make.
func (s *server) buffer() []byte {
	select {
	case b := <-s.buffers:
		return b
	default:
		return make([]byte, 0, wire.HeaderSize+wire.MaxAnswer)
	}
}

func (s *server) release(b []byte) {
	select {
	case s.buffers <- b:
	default:
	}
}

// handle appends the answer to a request to b.
func (s *server) handle(op wire.Op, payload, b []byte) ([]byte, error) {
	switch op {
	case wire.OpSetup:
		return s.setup(payload, b)
	case wire.OpOpen:
		return s.open(payload, b)
	}
	if op >= wire.OpTest && s.program.Test != nil {
		answer, err := s.program.Test(op, payload)
		return append(b, answer...), err
	}
	if s.disks == nil {
		return nil, fmt.Errorf("%w: request %d before the disks are open", errProtocol, op)
	}
	return s.disks.handle(op, payload, b)
}

// setup confines the process.
func (s *server) setup(payload, b []byte) ([]byte, error) {
	r, err := wire.DecodeSetup(payload)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errProtocol, err)
	}
	for i := range int(r.Files) {
		s.images = append(s.images, os.NewFile(uintptr(FirstDisk+i), fmt.Sprintf("image %d", i)))
	}
	if r.Served {
		if s.parent, err = newFetcher(FirstDisk + int(r.Files)); err != nil {
			return nil, err
		}
	}
	measures := s.program.Confine(confine.Options{
		FirstDisk: FirstDisk, Disks: int(r.Files), Memory: r.Memory, Namespaces: r.Namespaces,
	})
	return wire.AppendMeasures(b, measures), nil
}

// open opens the disks.
func (s *server) open(payload, b []byte) ([]byte, error) {
	r, err := wire.DecodeOpen(payload)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errProtocol, err)
	}
	if s.disks != nil {
		return nil, fmt.Errorf("%w: the disks are open already", errProtocol)
	}
	if s.disks, err = openDisks(s.images, s.parent, r, s.memory); err != nil {
		return nil, err
	}
	var out wire.Opened
	for _, k := range s.disks.disks {
		out.Disks = append(out.Disks, k.describe())
	}
	return out.Append(b), nil
}
