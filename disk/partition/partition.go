// Package partition reads the partition table of a guest's disk: GPT (UEFI
// specification, chapter 5) and MBR with its logical partitions.
//
// It reads a table as the guest's Linux kernel would, so that partition N here is
// partition N there. It promises to return a table whose partitions lie within
// the disk and do not overlap, or a [disk.Error], in bounded time and memory.
//
// # Which table is it
//
// The last two bytes of the first sector, 55 AA, mark an MBR, but the boot
// sectors of FAT, NTFS and other filesystems end in the same way, so a disk that
// is one filesystem must not be taken for a partitioned one:
//
//  1. Without 55 AA there is no table ([None]).
//  2. If one of the four entries is of type EE and starts at sector 1, it is a
//     [GPT], whatever the other entries are (a hybrid MBR). Without that entry
//     there is no GPT, even if its header is there: a table that a later fdisk or
//     mkfs replaced.
//  3. If an entry's first byte is neither 00 nor 80, it is not an entry but the
//     code or the text of a boot sector: [None].
//  4. If no entry is used, there is nothing to choose from: [None]. This is what
//     mkfs.fat leaves, and a boot loader in front of an ext4.
//  5. If the used entries lie within the disk and do not overlap, it is an
//     [MBR].
//  6. Otherwise, if the sector starts as the boot sector of FAT, exFAT or NTFS
//     does, the entries are chance, and it is [None]; else they are damaged, and
//     that is an error.
package partition

import (
	"fmt"
	"sort"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// layer makes the errors that belong to no kind of table.
var layer = ondisk.Layer{Name: "partition"}

// Kind is the kind of a partition table.
type Kind uint8

// The kinds of partition table.
const (
	// None: the disk is not partitioned. There may be a filesystem on all of it.
	None Kind = iota
	// MBR is the table of DOS.
	MBR
	// GPT is the table of UEFI.
	GPT
)

// String returns "none", "mbr" or "gpt".
func (k Kind) String() string {
	switch k {
	case MBR:
		return "mbr"
	case GPT:
		return "gpt"
	}
	return "none"
}

// DefaultSectorSize is the size in bytes of a disk's logical sectors where its VM
// is not configured otherwise.
const DefaultSectorSize = 512

// Table is a partition table.
type Table struct {
	Kind       Kind
	SectorSize int64  // bytes: 512 or 4096
	DiskID     GUID   // of GPT
	Signature  uint32 // of MBR: the disk's signature

	// Partitions are in the order of their numbers.
	Partitions []Partition

	// Damage is nil, or why the primary GPT could not be used. The table is
	// then that of the backup GPT at the end of the disk.
	Damage error

	// Remarks are what an administrator should know of a table that is good, a
	// sentence each: that its backup is damaged or absent, that the disk has
	// grown. They hold no hostile bytes.
	Remarks []string
}

// Partition is one partition.
type Partition struct {
	// Number is Linux's: of GPT the entry's, of MBR 1 to 4 for the primary
	// partitions, 5 and up for the logical ones.
	Number         int
	Offset, Length int64 // bytes

	// Of GPT.
	TypeID     GUID
	ID         GUID
	Attributes uint64
	Name       []byte // UTF-8, hostile

	// Of MBR. An extended partition is a container of logical ones, see
	// [Partition.Extended].
	Type   uint8
	Active bool
}

// Extended reports whether p is an MBR's container of logical partitions, which
// holds no data of its own.
func (p *Partition) Extended() bool { return isExtended(p.Type) }

// Find returns the partition with the given number.
func (t *Table) Find(number int) (Partition, error) {
	for _, p := range t.Partitions {
		if p.Number == number {
			return p, nil
		}
	}
	e := &disk.Error{
		Layer: layer.Name, Structure: fmt.Sprintf("partition %d", number), Offset: ondisk.Nowhere,
		Err: disk.ErrNotExist, Detail: fmt.Sprintf("the %v table has the partitions %v", t.Kind, t.numbers()),
	}
	if t.Kind == None {
		e.Detail = "the disk is not partitioned"
		e.Hint = "leave the partition out of this disk's declaration"
	}
	return Partition{}, e
}

func (t *Table) numbers() []int {
	list := make([]int, len(t.Partitions))
	for i, p := range t.Partitions {
		list[i] = p.Number
	}
	return list
}

// Read reads the partition table of d, whose logical sectors have sectorSize
// bytes: 512 or 4096, 0 for [DefaultSectorSize]. The size is not guessed, because
// it is the VM's and not the disk's.
func Read(d disk.Sparse, sectorSize int64) (*Table, error) {
	if sectorSize == 0 {
		sectorSize = DefaultSectorSize
	}
	if sectorSize != 512 && sectorSize != 4096 {
		return nil, layer.Unsupported("table", ondisk.Nowhere, "", "sectors of %d bytes; 512 and 4096 are supported", sectorSize)
	}
	r := &reader{d: d, sectorSize: sectorSize, sectors: uint64(d.Size() / sectorSize)}
	m, err := r.mbr()
	if err != nil {
		return nil, err
	}
	switch {
	case m == nil:
		return &Table{Kind: None, SectorSize: sectorSize}, nil
	case m.protective():
		return r.gpt()
	}
	return r.dos(m)
}

// checkOverlap returns an error if two of the partitions overlap.
func checkOverlap(layer ondisk.Layer, partitions []Partition) error {
	sorted := append([]Partition(nil), partitions...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Offset < sorted[j].Offset })
	for i := 1; i < len(sorted); i++ {
		a, b := sorted[i-1], sorted[i]
		if b.Offset-a.Offset < a.Length {
			return layer.Damaged("table", ondisk.Nowhere, "partitions %d and %d overlap", a.Number, b.Number)
		}
	}
	return nil
}
