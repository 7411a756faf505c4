package ext4

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// sort orders the tags by target, and those of one target as the log has them.
func (l *logContent) sort() {
	slices.SortStableFunc(l.tags, func(a, b tag) int { return cmp.Compare(a.target, b.target) })
}

// applyRevokes notes which targets a transaction revoked: the block was freed,
// and may hold something else by now. Only targets of tags are looked up, so
// that a log full of revoke records takes no memory.
func (j *journal) applyRevokes(log *logContent) error {
	raw := make([]byte, j.fs.sb.blockSize())
	total := 0
	for _, r := range log.revokes {
		if err := j.read(raw, r.block); err != nil {
			return err
		}
		n, err := j.applyRevokeBlock(raw, r, log.tags)
		if err != nil {
			return err
		}
		if total += n; total > maxRevokes {
			return layer.Beyond(journalBlockName(r.block), ondisk.Nowhere, "more than %d revoke records", maxRevokes)
		}
	}
	return nil
}

// applyRevokeBlock reads the records of one revoke block, and returns how many
// there are. Layout, big endian:
// behind the header 4 r_count, the bytes in use; then block numbers of 4 bytes,
// or of 8 with the journal's 64bit feature.
func (j *journal) applyRevokeBlock(raw []byte, r revokeBlock, tags []tag) (int, error) {
	room := len(raw)
	if j.hasChecksum() {
		room -= journalTailSize
	}
	used := binary.BigEndian.Uint32(raw[journalHeaderSize:])
	if uint64(used) > uint64(room) {
		return 0, layer.Damaged(journalBlockName(r.block), ondisk.Nowhere, "a revoke block uses %d of %d bytes", used, room)
	}
	size := 4
	if j.incompat&journalIncompat64Bit != 0 {
		size = 8
	}
	count := 0
	for at := journalHeaderSize + 4; at+size <= int(used); at += size {
		count++
		target := uint64(binary.BigEndian.Uint32(raw[at:]))
		if size == 8 {
			target = binary.BigEndian.Uint64(raw[at:])
		}
		// The first tag of a target keeps the newest revocation for all.
		i, found := slices.BinarySearchFunc(tags, target, func(t tag, target uint64) int { return cmp.Compare(t.target, target) })
		if found && (!tags[i].revoked || isBefore(tags[i].revokedBy, r.sequence)) {
			tags[i].revoked, tags[i].revokedBy = true, r.sequence
		}
	}
	return count, nil
}

// isBefore compares sequence numbers, which wrap around.
func isBefore(a, b uint32) bool { return int32(a-b) < 0 }

// replacements keeps the newest version of each block, checked. All that the
// journal would write is checked, even what it would overwrite again.
func (j *journal) replacements(log *logContent) ([]replacement, error) {
	var list []replacement
	raw := make([]byte, j.fs.sb.blockSize())
	var first tag // of the target
	for i, t := range log.tags {
		if i == 0 || first.target != t.target {
			first = t
		}
		if first.revoked && !isBefore(first.revokedBy, t.sequence) {
			continue
		}
		if t.target >= j.fs.sb.blockCount {
			return nil, layer.Damaged(journalBlockName(t.block), ondisk.Nowhere, "it is for block %d, the filesystem has %d", t.target, j.fs.sb.blockCount)
		}
		if err := j.verifyData(raw, t); err != nil {
			return nil, err
		}
		source, err := j.place(t.block)
		if err != nil {
			return nil, err
		}
		r := replacement{target: t.target, source: source, escaped: t.escaped}
		if n := len(list); n > 0 && list[n-1].target == t.target {
			list[n-1] = r
		} else {
			list = append(list, r)
		}
	}
	return list, nil
}

// verifyData checks a journaled block against its tag, where tags have
// checksums: CRC-32C of the sequence and the block, of which version 2 has room
// for the lower half.
func (j *journal) verifyData(raw []byte, t tag) error {
	if !j.hasChecksum() {
		return nil
	}
	if err := j.read(raw, t.block); err != nil {
		return err
	}
	got := uint32(j.seed.add(binary.BigEndian.AppendUint32(nil, t.sequence)).add(raw))
	if j.incompat&journalIncompatCsumV3 == 0 {
		got &= 0xffff
	}
	if got != t.checksum {
		return layer.Damaged(journalBlockName(t.block), ondisk.Nowhere, "checksum is %#08x, the transaction says %#08x", got, t.checksum)
	}
	return nil
}
