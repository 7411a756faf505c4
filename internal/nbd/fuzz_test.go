package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/nbd"
)

// script is a connection to a client that says what it has to say at once, and
// then hangs up its half. As a listener it is the only one that comes.
type script struct {
	net.Conn // for what nobody calls
	in       *bytes.Reader

	mu     sync.Mutex // guards what follows
	out    bytes.Buffer
	closed bool

	accepted bool
	ended    context.CancelFunc
	over     <-chan struct{}
}

// play runs a whole session, and returns what the server said.
func play(t testing.TB, say []byte, exports ...nbd.Export) []byte {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := &script{in: bytes.NewReader(say), ended: cancel, over: ctx.Done()}
	if err := nbd.Serve(ctx, s, nbd.Options{Exports: exports}); err != nil {
		t.Fatal(err)
	}
	return s.out.Bytes()
}

func (s *script) Accept() (net.Conn, error) {
	if !s.accepted {
		s.accepted = true
		return s, nil
	}
	<-s.over
	return nil, net.ErrClosed
}

func (s *script) Addr() net.Addr { return nil }

func (s *script) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.ended()
	return nil
}

func (s *script) Read(p []byte) (int, error) { return s.in.Read(p) }

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	return s.out.Write(p)
}

func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// sessions are what clients may say, by the name of the seed in testdata.
func sessions() map[string][]byte {
	structured := join(uint32(3), optionBytes(optStructured, nil), optionBytes(optSetMeta, join(text("a"), uint32(1), text("base:allocation"))))
	reads := join(requestBytes(0, cmdRead, 1, 0, 170_000), requestBytes(0, cmdRead, 2, 60_000, 80_000), requestBytes(0, cmdCache, 3, 0, 100_000),
		requestBytes(flagDF, cmdRead, 4, 1000, 2000), requestBytes(0, cmdStatus, 5, 0, 170_000), requestBytes(flagReqOne, cmdStatus, 6, 3, 170_000))
	writes := join(requestBytes(0, cmdWrite, 7, 0, 10), "0123456789", requestBytes(0, cmdTrim, 8, 0, 10), requestBytes(0, cmdZeroes, 9, 0, 10),
		requestBytes(0, cmdFlush, 10, 0, 0), requestBytes(0, 99, 11, 0, 0), requestBytes(0, cmdRead, 12, 180_000, 1))
	disconnect := requestBytes(0, cmdDisc, 0, 0, 0)
	return map[string][]byte{
		"structured":  join(structured, goBytes("a"), reads, writes, disconnect),
		"simple":      join(uint32(1), goBytes(""), reads, writes, disconnect),
		"export-name": join(uint32(1), optionBytes(optExportName, []byte("b")), reads, writes),
		"questions": join(uint32(3), optionBytes(optList, nil), optionBytes(optInfo, join(text("b"), uint16(2), uint16(1), uint16(2))),
			optionBytes(optListMeta, join(text("a"), uint32(1), text("base:"))), optionBytes(optStartTLS, nil), goBytes("c"), optionBytes(optAbort, nil)),
		"mismatch": join(structured, goBytes("b"), reads, "no request"),
		"too-long": join(uint32(3), "IHAVEOPT", uint32(optGo), uint32(1<<31)),
	}
}

var update = flag.Bool("update", false, "write the seeds of the fuzz test")

// TestSeeds fails if a seed is missing or is not what its session is.
func TestSeeds(t *testing.T) {
	for name, say := range sessions() {
		path := filepath.Join("testdata", "fuzz", "FuzzSession", name)
		want := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", say)
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("seed %s: %v, or not what it should be (go test -run TestSeeds -update)", name, err)
		}
	}
}

// FuzzSession has clients say anything. The session comes to an end, and every
// answer is what the protocol says.
func FuzzSession(f *testing.F) {
	a := newMemDisk(extent(disk.ExtentData, 64*kib), extent(disk.ExtentHole, 64*kib), extent(disk.ExtentZero, 100), extent(disk.ExtentData, 50*kib))
	b := newMemDisk(extent(disk.ExtentData, 171_000))
	f.Fuzz(func(t *testing.T, say []byte) {
		j := &judge{t: t, said: say, heard: play(t, say, nbd.Export{Name: "a", Disk: a}, nbd.Export{Name: "b", Disk: b}),
			disks: map[string]*memDisk{"": a, "a": a, "b": b}}
		if d := j.handshake(); d != nil {
			j.transmission(d)
		}
		if len(j.heard) > 0 && !t.Failed() {
			t.Errorf("%d bytes are left over: %.100q", len(j.heard), j.heard)
		}
	})
}

// TestSeedsReach fails if the seeds do not get to where they should.
func TestSeedsReach(t *testing.T) {
	d := newMemDisk(extent(disk.ExtentData, 171_000))
	least := map[string]int{"structured": 252_000, "simple": 200_000, "export-name": 200_000, "questions": 360, "too-long": 38}
	for name, say := range sessions() {
		if n := len(play(t, say, nbd.Export{Name: "a", Disk: d}, nbd.Export{Name: "b", Disk: d})); n < least[name] {
			t.Errorf("%s: %d bytes are heard, want at least %d", name, n, least[name])
		}
	}
}

// judge compares what was heard with what was said.
type judge struct {
	t           *testing.T
	said, heard []byte
	disks       map[string]*memDisk
	structured  bool
	status      *memDisk
}

// take takes n bytes of what was said, or nil.
func (j *judge) take(n int) []byte {
	if len(j.said) < n {
		j.said = nil
		return nil
	}
	b := j.said[:n]
	j.said = j.said[n:]
	return b
}

// handshake returns the disk that the client got, or nil.
func (j *judge) handshake() *memDisk {
	if len(j.heard) < 18 {
		j.t.Fatalf("greeting %q", j.heard)
	}
	j.heard = j.heard[18:]
	flags := j.take(4)
	if flags == nil || binary.BigEndian.Uint32(flags)&^2 != 1 {
		return nil
	}
	for range 4096 {
		head := j.take(16)
		if head == nil || string(head[:8]) != "IHAVEOPT" {
			return nil
		}
		opt, length := binary.BigEndian.Uint32(head[8:]), binary.BigEndian.Uint32(head[12:])
		if length > 64*kib {
			j.answer(opt, repTooBig)
			return nil
		}
		data := j.take(int(length))
		switch {
		case len(data) != int(length):
			return nil
		case opt == optExportName:
			d := j.disks[string(data)]
			if d != nil {
				j.heard = j.heard[10+124*(1-int(flags[3]>>1)):]
			}
			return d
		case opt == optAbort:
			j.answer(opt, repAck)
			return nil
		}
		if d := j.option(opt, data); d != nil {
			return d
		}
	}
	return nil
}

// answer takes the answers to an option, and returns the last one's type, which
// is one of want, if given.
func (j *judge) answer(opt uint32, want ...uint32) uint32 {
	r := bytes.NewReader(j.heard)
	for {
		kind, data, err := readOptionReply(r, opt)
		if err != nil {
			j.t.Fatalf("option %d: %v", opt, err)
		}
		j.heard = j.heard[len(j.heard)-r.Len():]
		if kind == repServer || kind == repInfo || kind == repMeta {
			if kind == repMeta && opt == optSetMeta && string(data) != "\x00\x00\x00\x01base:allocation" {
				j.t.Errorf("context %q", data)
			}
			continue
		}
		if kind != repAck && kind < 1<<31 || len(want) > 0 && kind != want[0] {
			j.t.Errorf("option %d: the last answer is %#x", opt, kind)
		}
		return kind
	}
}

// option judges the answer to one option, and returns the disk that the client
// got by it, if any.
func (j *judge) option(opt uint32, data []byte) *memDisk {
	before := len(j.heard)
	ok := j.answer(opt) == repAck
	var d *memDisk
	if len(data) >= 4 && int(binary.BigEndian.Uint32(data)) <= len(data)-4 {
		d = j.disks[string(data[4:][:binary.BigEndian.Uint32(data)])]
	}
	switch opt {
	case optGo:
		if ok && d == nil {
			j.t.Fatalf("option %q got a disk", data)
		}
		if ok {
			return d
		}
	case optStructured:
		j.structured = j.structured || ok
	case optSetMeta:
		j.status = nil
		if ok && before-len(j.heard) > 20 { // more than the acknowledgement
			j.status = d
		}
	}
	return nil
}
