package xfs

import (
	"encoding/binary"
	"errors"

	"github.com/drydock-vm/drydock/disk"
)

// Where the log ends has to be found out, as Linux does (xlog_find_head and
// xlog_find_tail in fs/xfs/xfs_log_recover.c): the blocks before the head have
// the cycle of this turn, those behind it that of the turn before, but for the
// records that were in flight when the machine stopped.

// ends is what part of the log counts.
type ends struct {
	head  uint32 // the block behind the last record
	tail  uint32 // the block where a replay starts
	lsn   lsn    // of the head
	clean bool   // nothing is to be replayed
}

// find returns the ends of the log.
func (j *journal) find() (ends, error) {
	first, err := j.cycle(0)
	if err != nil {
		return ends{}, err
	}
	if first == 0 {
		return ends{clean: true, lsn: makeLSN(1, 0)}, nil // never written to
	}
	head, hole, err := j.guessHead(first)
	if err != nil {
		return ends{}, err
	}
	if e, err := j.cleanEnd(head); err != nil || e.clean {
		return e, err
	}
	if head, err = j.skipHoles(head, hole); err != nil {
		return ends{}, err
	}
	last, err := j.lastRecord(head)
	if err != nil {
		return ends{}, err
	}
	if j.end(&last) != head%j.blocks {
		head = last.block // the last record is not all there
		if last, err = j.lastRecord(head); err != nil {
			return ends{}, err
		}
	}
	return j.verifyEnds(head%j.blocks, last)
}

// guessHead finds where the cycle of the blocks falls, and which cycle before
// that place means that a record is missing. A head of all blocks stands for a
// log that ends where the ring does.
func (j *journal) guessHead(first uint32) (head, hole uint32, err error) {
	last, err := j.cycle(j.blocks - 1)
	if err != nil {
		return 0, 0, err
	}
	if first == last {
		return j.blocks, last - 1, nil
	}
	low, high := uint32(0), j.blocks-1 // the first has another cycle, high has last's
	for high-low > 1 {
		mid := low + (high-low)/2
		c, err := j.cycle(mid)
		if err != nil {
			return 0, 0, err
		}
		if c == last {
			high = mid
		} else {
			low = mid
		}
	}
	return high, last, nil
}

// cleanEnd reports whether a clean unmount is the last thing in the log. It is
// written alone, once all else is on the disk, so that nothing can be missing.
func (j *journal) cleanEnd(head uint32) (ends, error) {
	r, err := j.lastRecord(head)
	if errors.Is(err, disk.ErrCorrupt) {
		return ends{}, nil // for who looks closer
	}
	if err != nil {
		return ends{}, err
	}
	clean, err := j.isUnmount(&r, head%j.blocks)
	if errors.Is(err, disk.ErrCorrupt) || err == nil && !clean {
		return ends{}, nil
	}
	if err != nil {
		return ends{}, err
	}
	return ends{clean: true, lsn: j.headLSN(&r, head%j.blocks)}, j.checkOwner(&r)
}

func (j *journal) isUnmount(r *record, head uint32) (bool, error) {
	if j.end(r) != head || r.ops != 1 {
		return false, nil
	}
	data, err := j.data(r)
	if err != nil {
		return false, err
	}
	return len(data) >= opHeader && data[9]&opUnmount != 0, nil
}

// headLSN is the time at the head, behind record r.
func (j *journal) headLSN(r *record, head uint32) lsn {
	cycle := r.cycle
	if r.block >= head {
		cycle++ // the next record is of the next turn, or r itself ends in it
	}
	return makeLSN(cycle, head)
}

// skipHoles returns the first hole within what can be in flight before the head.
func (j *journal) skipHoles(head, hole uint32) (uint32, error) {
	n := min(j.blocks, windowBlocks)
	if hole == 0 {
		n = min(n, head) // the ring was not filled once
	}
	if head < n {
		at, found, err := j.firstOf(j.blocks-(n-head), n-head, hole-1)
		if err != nil || found {
			return at, err
		}
		n = head
	}
	at, found, err := j.firstOf(head-n, n, hole)
	if err != nil || found {
		return at, err
	}
	return head, nil
}

// scanBlocks is how much of the log is looked at in one go.
const scanBlocks = 128

// firstOf finds the first of count blocks that has a cycle.
func (j *journal) firstOf(block, count, cycle uint32) (uint32, bool, error) {
	buf := make([]byte, scanBlocks*logBlock)
	for end := block + count; block < end; {
		p := buf[:min(scanBlocks, end-block)*logBlock]
		if err := j.readInto(p, block); err != nil {
			return 0, false, err
		}
		for ; len(p) > 0; p = p[logBlock:] {
			if cycleOf(p) == cycle {
				return block, true, nil
			}
			block++
		}
	}
	return 0, false, nil
}

// lastRecord returns the last record that starts before head.
func (j *journal) lastRecord(head uint32) (record, error) {
	return j.recordBefore(head, min(j.blocks, recordBlocks), j.damaged(head%j.blocks, "there is no record before the end of the log"))
}

// startsBefore returns where the last records before head start, the last first:
// at most count, and within so many blocks.
func (j *journal) startsBefore(head uint32, count int, blocks uint32) ([]uint32, error) {
	var starts []uint32
	step := uint32(8) // most often one record, that of an unmount
	for done := uint32(0); done < blocks; step = scanBlocks {
		n := min(step, blocks-done)
		from := j.at(head + j.blocks - done - n)
		if from >= j.blocks {
			from -= j.blocks
		}
		p, err := j.read(from, n)
		if err != nil {
			return nil, err
		}
		for i := int(n) - 1; i >= 0; i-- {
			if isHeader(p[i*logBlock:]) {
				if starts = append(starts, j.at(from+uint32(i))); len(starts) == count {
					return starts, nil
				}
			}
		}
		done += n
	}
	return starts, nil
}

// verifyEnds checks the records of the log, of which last ends at head. Those
// that were in flight may be torn: then the log ends before the first of them.
func (j *journal) verifyEnds(head uint32, last record) (ends, error) {
	tail := last.tail.block()
	starts, err := j.startsBefore(head, maxInFlight, min(j.distance(tail, head), maxInFlight*recordBlocks))
	if err != nil {
		return ends{}, err
	}
	if len(starts) > 0 {
		bad, err := j.walk(starts[len(starts)-1], head, nil)
		if err != nil && !errors.Is(err, disk.ErrCorrupt) {
			return ends{}, err
		}
		if err != nil {
			if last, err = j.recordBefore(bad, min(j.distance(tail, bad), recordBlocks), err); err != nil {
				return ends{}, err
			}
			head, tail = bad, last.tail.block()
		}
	}
	e := ends{head: head, tail: tail, lsn: j.headLSN(&last, head)}
	if err := j.checkOwner(&last); err != nil {
		return ends{}, err
	}
	if e.clean, err = j.isUnmount(&last, head); err != nil || e.clean {
		return e, err
	}
	if head == tail {
		return ends{}, j.damaged(head, "the log ends where it starts")
	}
	return e, j.verifyTail(&e, last.size)
}

// recordBefore returns the last record that starts in so many blocks before
// head, or fails with the error that there is none.
func (j *journal) recordBefore(head, blocks uint32, none error) (record, error) {
	starts, err := j.startsBefore(head, 1, blocks)
	if err != nil {
		return record{}, err
	}
	if len(starts) == 0 {
		return record{}, none
	}
	return j.record(starts[0])
}

// verifyTail checks all records. In a log that was full, what was in flight may
// have been written over the records at the tail: those were not needed any more.
// Each turn starts behind what the one before has read.
func (j *journal) verifyTail(e *ends, size uint32) error {
	for {
		bad, err := j.walk(e.tail, e.head, nil)
		if err == nil || !errors.Is(err, disk.ErrCorrupt) {
			return err
		}
		if j.distance(e.head, bad) > maxInFlight*max(size, plainRecordSize)/logBlock {
			return err
		}
		next, found, seekErr := j.nextStart(j.at(bad+1), e.head)
		if seekErr != nil {
			return seekErr
		}
		if !found {
			return err
		}
		e.tail = next
	}
}

// nextStart finds the next start of a record from block on, as far as one can be.
func (j *journal) nextStart(block, head uint32) (uint32, bool, error) {
	for left := min(j.distance(block, head), recordBlocks); left > 0; {
		n := min(left, scanBlocks)
		p, err := j.read(block, n)
		if err != nil {
			return 0, false, err
		}
		for i := range n {
			if isHeader(p[i*logBlock:]) {
				return j.at(block + i), true, nil
			}
		}
		block, left = j.at(block+n), left-n
	}
	return 0, false, nil
}

// walk goes through the records from block from to head, verified, and calls
// visit for each, if that is not nil. With an error that it has not from visit it
// returns where the record is that is damaged.
func (j *journal) walk(from, head uint32, visit func(*record, []byte) error) (uint32, error) {
	for left := j.distance(from, head); left > 0; {
		r, err := j.record(from)
		if err != nil {
			return from, err
		}
		length := r.header + r.dataBlocks()
		if length > left {
			return from, j.damaged(from, "a record of %d blocks, %d before the end of the log", length, left)
		}
		if err := j.checkOwner(&r); err != nil {
			return from, err
		}
		data, err := j.data(&r)
		if err != nil {
			return from, err
		}
		if visit != nil {
			if err := visit(&r, data); err != nil {
				return from, err
			}
		}
		from, left = j.at(from+length), left-length
	}
	return head, nil
}

// Log operations ("Log Operations"), each behind a header:
//
//	0 4 oh_tid   4 4 oh_len   8 1 oh_clientid   9 1 oh_flags   10 2 unused
const (
	opHeader = 12

	opStart     = 0x01
	opCommit    = 0x02
	opContinue  = 0x04
	opContinued = 0x08
	opEnd       = 0x10
	opUnmount   = 0x20

	clientTransaction = 0x69
	clientLog         = 0xaa
)

// operation is one of them.
type operation struct {
	tid    uint32
	client byte
	flags  byte
	data   []byte
}

// takeOperation takes the next operation off the data of a record.
func takeOperation(p []byte) (op operation, rest []byte, ok bool) {
	if len(p) < opHeader {
		return op, nil, false
	}
	length := binary.BigEndian.Uint32(p[4:])
	if uint64(length) > uint64(len(p)-opHeader) {
		return op, nil, false
	}
	end := opHeader + int(length)
	op = operation{tid: binary.BigEndian.Uint32(p), client: p[8], flags: p[9], data: p[opHeader:end:end]}
	return op, p[end:], true
}
