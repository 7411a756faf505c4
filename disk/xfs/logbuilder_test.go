package xfs_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// logBuilder writes a log of its own into a seed, from a block of the ring on: the
// blocks before are of the same turn, those behind of the turn before.
type logBuilder struct {
	t     *testing.T
	raw   []byte // the image
	start int    // of the log, in bytes
	size  int    // in blocks of 512 bytes
	block int    // of the next record
	cycle uint32
	tail  uint64 // what records say is the tail
	last  int    // where the last record starts
}

// logCycle is later than all that a seed holds.
const logCycle = 7

func newLogBuilder(t *testing.T, seed string, block int) *logBuilder {
	m := disktest.LoadSeed(t, seed)
	b := &logBuilder{t: t, raw: make([]byte, m.Length), block: block, cycle: logCycle}
	if _, err := m.ReadAt(b.raw, 0); err != nil {
		t.Fatal(err)
	}
	blockSize := int(binary.BigEndian.Uint32(b.raw[4:]))
	b.start = int(binary.BigEndian.Uint64(b.raw[48:])) * blockSize // a seed has one group
	b.size = int(binary.BigEndian.Uint32(b.raw[96:])) * blockSize / 512
	if block < 0 {
		b.block += b.size
	}
	for i := range b.size {
		cycle := b.cycle
		if i >= b.block {
			cycle--
		}
		clear(b.at(i))
		binary.BigEndian.PutUint32(b.at(i), cycle)
	}
	b.tail = uint64(b.cycle)<<32 | uint64(b.block)
	return b
}

// at is a block of the log.
func (b *logBuilder) at(i int) []byte { return b.raw[b.start+i*512:][:512] }

// op is an operation of a record.
type op struct {
	tid   uint32
	flags byte
	data  []byte
}

// record writes one record.
func (b *logBuilder) record(ops ...op) {
	var data []byte
	for _, o := range ops {
		data = binary.BigEndian.AppendUint32(data, o.tid)
		data = binary.BigEndian.AppendUint32(data, uint32(len(o.data)))
		data = append(data, 0x69, o.flags, 0, 0)
		data = append(data, o.data...)
	}
	length := len(data)
	data = append(data, make([]byte, -length&511)...)
	head := make([]byte, 512)
	binary.BigEndian.PutUint32(head, 0xfeedbabe)
	binary.BigEndian.PutUint32(head[4:], b.cycle)
	binary.BigEndian.PutUint32(head[8:], 2)
	binary.BigEndian.PutUint32(head[12:], uint32(len(data)))
	binary.BigEndian.PutUint64(head[16:], uint64(b.cycle)<<32|uint64(b.block))
	binary.BigEndian.PutUint64(head[24:], b.tail)
	binary.BigEndian.PutUint32(head[36:], ^uint32(0))
	binary.BigEndian.PutUint32(head[40:], uint32(len(ops)))
	binary.BigEndian.PutUint32(head[300:], 1)
	copy(head[304:], b.raw[32:48])
	binary.BigEndian.PutUint32(head[320:], 32<<10)
	turn := b.cycle
	for i := 0; i*512 < len(data); i++ {
		if b.block+1+i == b.size {
			turn++
		}
		copy(head[44+i*4:], data[i*512:i*512+4])
		binary.BigEndian.PutUint32(data[i*512:], turn)
	}
	binary.LittleEndian.PutUint32(head[32:], castagnoli(append(bytes.Clone(head[:328]), data...)))
	b.last = b.block
	for all := append(head, data...); len(all) > 0; all = all[512:] {
		copy(b.at(b.block), all)
		if b.block++; b.block == b.size {
			b.block = 0
			b.cycle++
		}
	}
}

// transaction returns the operations of a committed one.
func transaction(tid uint32, items ...[][]byte) []op {
	header := append([]byte("NART"), make([]byte, 12)...)
	ops := []op{{tid, 1, nil}, {tid, 0, header}}
	for _, regions := range items {
		for _, p := range regions {
			ops = append(ops, op{tid, 0, p})
		}
	}
	return append(ops, op{tid, 2, nil})
}

// image is what was built, on disk.
func (b *logBuilder) image() string {
	path := filepath.Join(b.t.TempDir(), "built.img")
	if err := os.WriteFile(path, b.raw, 0o644); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// little makes a region of numbers of 2, 4 and 8 bytes.
func little(numbers ...any) []byte {
	var out []byte
	for _, n := range numbers {
		switch n := n.(type) {
		case uint16:
			out = binary.LittleEndian.AppendUint16(out, n)
		case uint32:
			out = binary.LittleEndian.AppendUint32(out, n)
		case uint64:
			out = binary.LittleEndian.AppendUint64(out, n)
		}
	}
	return out
}

// buffer logs the 128 bytes at offset off of the image as part of the buffer of
// size bytes that starts at start.
func (b *logBuilder) buffer(start, size, off int, content []byte) [][]byte {
	chunk := (off - start) / 128
	dirty := make([]byte, (size/128+31)/32*4)
	dirty[chunk/8] |= 1 << (chunk % 8)
	// The kind of a directory's data, for the kernel to make the checksum anew.
	head := little(uint16(0x123c), uint16(2), uint16(10<<11), uint16(size/512), uint64(start/512), uint32(len(dirty)/4))
	return [][]byte{append(head, dirty...), content}
}

// cancel logs that a buffer was freed.
func cancel(start, size int) [][]byte {
	return [][]byte{little(uint16(0x123c), uint16(1), uint16(2), uint16(size/512), uint64(start/512), uint32(1), uint32(0))}
}

// inode logs the core of an inode, changed, whose cluster of 16 KiB it finds by
// itself.
func (b *logBuilder) inode(ino uint64, change func(core []byte)) [][]byte {
	const cluster = 16 << 10
	at := int(ino) * 512
	core := swapCore(b.raw[at:])
	change(core)
	head := little(uint16(0x123b), uint16(2), uint32(1), uint16(0), uint16(0), uint32(0), ino, uint64(0), uint64(0),
		uint64(at/cluster*cluster/512), uint32(cluster/512), uint32(at%cluster))
	return [][]byte{head, core}
}

// swapCore turns the numbers of an inode around. Times are two of them, but for
// those of version 3 in the seeds.
func swapCore(disk []byte) []byte {
	core := bytes.Clone(disk[:176])
	sizes := []int{2, 2, 1, 1, 2, 4, 4, 4, 2, 2, 8, 8, 8, 8, 8, 8, 4, 4, 2, 1, 1, 4, 2, 2, 4, 4, 4, 8, 8, 8, 4}
	if disk[4] < 3 {
		sizes = []int{2, 2, 1, 1, 2, 4, 4, 4, 2, 2, 8, 4, 4, 4, 4, 4, 4, 8, 8, 4, 4, 2, 1, 1, 4, 2, 2, 4}
	}
	at := 0
	swap := func(size int) {
		slices.Reverse(core[at : at+size])
		at += size
	}
	for _, size := range sizes {
		swap(size)
	}
	if at = 144; disk[4] >= 3 {
		swap(8)
		swap(8)
	}
	return core
}

// reseal makes the checksum of the last record right again.
func (b *logBuilder) reseal() {
	all := b.raw[b.start+b.last*512 : b.start+b.block*512]
	clear(all[32:36])
	binary.LittleEndian.PutUint32(all[32:], castagnoli(append(bytes.Clone(all[:328]), all[512:]...)))
}
