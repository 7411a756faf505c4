package nbd_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/nbd"
)

// gate is a disk whose reads wait until they may go on.
type gate struct {
	*memDisk
	reading atomic.Int64 // how many wait or have waited
	bytes   atomic.Int64 // how much they read
	open    chan struct{}
}

func newGate(size int64) *gate {
	return &gate{memDisk: newMemDisk(extent(disk.ExtentData, size)), open: make(chan struct{})}
}

func (g *gate) ReadAt(p []byte, off int64) (int, error) {
	g.reading.Add(1)
	g.bytes.Add(int64(len(p)))
	<-g.open
	return g.memDisk.ReadAt(p, off)
}

// settled returns what n grows to, which should be at least least.
func settled(n *atomic.Int64, least int64) int64 {
	for range 300 {
		if n.Load() >= least {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(200 * time.Millisecond) // for it to grow too much
	return n.Load()
}

// TestParallel has a disk that answers nobody: several requests of a connection
// are read at the same time, and no more than a few.
func TestParallel(t *testing.T) {
	g := newGate(mib)
	s := start(t, nbd.Export{Disk: g})
	k := s.begin(t, "", true)
	for i := range uint64(100) {
		k.say(requestBytes(0, cmdRead, i, i*1000, 1000))
	}
	if n := settled(&g.reading, 8); n != 8 {
		t.Errorf("%d requests are read at the same time", n)
	}
	close(g.open)
	seen := make(map[uint64]bool)
	for range 100 {
		c, err := readChunk(k, nil)
		if err != nil || !bytes.Equal(c.payload, g.content[c.offset:][:1000]) || c.offset != c.cookie*1000 || seen[c.cookie] {
			t.Fatalf("cookie %d: %v, or other content", c.cookie, err)
		}
		seen[c.cookie] = true
	}
}

// TestAhead has a client that takes no replies: the disk is read nevertheless, up
// to what may lie ready.
func TestAhead(t *testing.T) {
	for _, structured := range []bool{true, false} {
		g := newGate(32 * mib)
		close(g.open)
		s := start(t, nbd.Export{Disk: g})
		k := s.begin(t, "", structured)
		for range 8 {
			k.say(requestBytes(0, cmdRead, 0, 0, 32*mib))
		}
		n := settled(&g.bytes, 2*mib)
		// One large reply, or a chunk of each, and what is in the socket.
		if n < 2*mib || n > 40*mib {
			t.Errorf("structured %v: %d bytes are read ahead", structured, n)
		}
	}
}

// TestEndWaits ends a server in the middle of a read: it waits for the disk, and
// no longer.
func TestEndWaits(t *testing.T) {
	g := newGate(mib)
	s := start(t, nbd.Export{Disk: g})
	s.begin(t, "", true).say(requestBytes(0, cmdRead, 0, 0, 1000))
	settled(&g.reading, 1)
	var opened atomic.Bool
	time.AfterFunc(300*time.Millisecond, func() {
		opened.Store(true)
		close(g.open)
	})
	s.stop()
	if !opened.Load() {
		t.Error("the server has ended while its disk is read")
	}
}

// TestClients reads at random from many connections at once.
func TestClients(t *testing.T) {
	d := newMemDisk(extent(disk.ExtentData, 700*kib), extent(disk.ExtentHole, 300*kib), extent(disk.ExtentData, 3*kib), extent(disk.ExtentZero, 2*kib),
		extent(disk.ExtentData, mib))
	s := start(t, nbd.Export{Disk: d})
	var wg sync.WaitGroup
	for i := range uint64(8) {
		k := s.begin(t, "", i%2 == 0)
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, i))
			for range 50 {
				off := random.Int64N(d.Size())
				n := 1 + random.Int64N(d.Size()-off)
				if err := k.check(d.content[off:off+n], uint64(off)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// check reads at off, and compares.
func (c *client) check(want []byte, off uint64) error {
	if _, err := c.Write(requestBytes(0, cmdRead, 9, off, uint32(len(want)))); err != nil {
		return err
	}
	for next := off; ; {
		got, err := readChunk(c, func(uint64) int { return len(want) })
		if err != nil {
			return err
		}
		if got.simple {
			got.offset = off
		}
		content := append(got.payload, make([]byte, got.zeros)...)
		if got.err != 0 || got.offset != next || !bytes.HasPrefix(want[next-off:], content) {
			return fmt.Errorf("%d bytes at %d: other content at %d", len(want), off, got.offset)
		}
		next += uint64(len(content))
		if got.done {
			if next != off+uint64(len(want)) {
				return fmt.Errorf("%d bytes at %d: they end at %d", len(want), off, next)
			}
			return nil
		}
	}
}
