package repository

import "slices"

// blockRows is how many rows are allocated at once.
const blockRows = 4096

// rows are many values, which have numbers. They never move, so growing copies nothing.
type rows[T any] struct {
	blocks [][]T
	count  uint32
}

// at returns the row of that number.
func (r *rows[T]) at(n uint32) *T { return &r.blocks[n/blockRows][n%blockRows] }

// add appends a row, and returns its number.
func (r *rows[T]) add(row T) uint32 {
	if int(r.count)/blockRows == len(r.blocks) {
		r.blocks = append(r.blocks, make([]T, blockRows))
	}
	*r.at(r.count) = row
	r.count++
	return r.count - 1
}

// minTable is the size of the first table, a power of two.
const minTable = 1 << 10

// table finds rows by the hash of their IDs, by open addressing. It is at most three
// quarters full. Rows of the same hash are found in the order in which they were added.
type table struct {
	places []uint32 // 1 + the number of a row, or 0
	used   int
}

func newTable() table { return table{places: make([]uint32, minTable)} }

// find calls yield for rows with the hash, and others, until that returns false.
func (t *table) find(hash uint32, yield func(n uint32) bool) {
	for at := t.begin(hash); t.places[at] != 0; at = t.begin(at + 1) {
		if !yield(t.places[at] - 1) {
			return
		}
	}
}

// begin returns where the chain of a hash begins.
func (t *table) begin(hash uint32) uint32 { return hash & uint32(len(t.places)-1) }

// add adds a row. HashOf is that of one that was added before.
func (t *table) add(n, hash uint32, hashOf func(n uint32) uint32) {
	if t.used++; t.used > len(t.places)/4*3 {
		old := t.places
		t.places = make([]uint32, 2*len(old))
		// From the end of a chain on, and around: one that goes over the end stays in order.
		end := slices.Index(old, 0)
		for _, part := range [][]uint32{old[end:], old[:end]} {
			for _, row := range part {
				if row != 0 {
					t.enter(row-1, hashOf(row-1))
				}
			}
		}
	}
	t.enter(n, hash)
}

// enter puts a row at the end of its chain.
func (t *table) enter(n, hash uint32) {
	at := t.begin(hash)
	for t.places[at] != 0 {
		at = t.begin(at + 1)
	}
	t.places[at] = n + 1
}
