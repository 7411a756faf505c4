package wire

import "hash/maphash"

// NameSet tells whether a name was there before. It keeps 64 bits of each, hashed
// with a secret seed: two names of one hash are taken for the same name, which happens
// by chance in one of 37 million directories of a million files, and not by intent.
type NameSet struct {
	seed   maphash.Seed
	hashes []uint64 // a table with open addressing; 0 is a free place
	count  int
}

// minNames is how many places the table has at first, a power of two.
const minNames = 32

// NewNameSet returns an empty set.
func NewNameSet() *NameSet { return &NameSet{seed: maphash.MakeSeed()} }

// Add adds a name, and reports whether it was not there before.
func (s *NameSet) Add(name []byte) bool {
	if 4*s.count >= 3*len(s.hashes) {
		s.grow()
	}
	if !s.put(max(maphash.Bytes(s.seed, name), 1)) {
		return false
	}
	s.count++
	return true
}

func (s *NameSet) put(hash uint64) bool {
	mask := uint64(len(s.hashes) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		switch s.hashes[i] {
		case 0:
			s.hashes[i] = hash
			return true
		case hash:
			return false
		}
	}
}

func (s *NameSet) grow() {
	old := s.hashes
	s.hashes = make([]uint64, max(minNames, 2*len(old)))
	for _, hash := range old {
		if hash != 0 {
			s.put(hash)
		}
	}
}
