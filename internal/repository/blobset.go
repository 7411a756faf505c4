package repository

// wordBits is how many blobs one word of a set holds.
const wordBits = 64

// BlobSet is a set of blobs that the index knows, in one bit for each. It is that
// of the index as it was when the set was made. It is not safe for concurrent use.
type BlobSet struct {
	idx  *index
	bits []uint64 // by the number of the blob's first entry
}

// NewBlobSet returns an empty set.
func (r *Repository) NewBlobSet() *BlobSet { return &BlobSet{idx: r.currentIndex()} }

// Add adds a blob. It returns the bytes that the blob takes in its pack, and
// whether it is new in the set; known is false for a blob that no index names.
func (s *BlobSet) Add(t BlobType, id ID) (stored int64, isNew, known bool) {
	n, length, ok := s.idx.number(t, id)
	if !ok {
		return 0, false, false
	}
	word, bit := int(n/wordBits), uint64(1)<<(n%wordBits)
	if word >= len(s.bits) {
		s.bits = append(s.bits, make([]uint64, word+1-len(s.bits))...)
	}
	isNew = s.bits[word]&bit == 0
	s.bits[word] |= bit
	return int64(length), isNew, true
}
