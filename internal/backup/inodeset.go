package backup

// inodeSet is a set of inode numbers, in pages of 4096: one bit for each where
// numbers lie close together, as they do.
type inodeSet map[uint64]*[64]uint64

// add adds a number, and reports whether it is new.
func (s inodeSet) add(ino uint64) bool {
	page := s[ino/4096]
	if page == nil {
		page = new([64]uint64)
		s[ino/4096] = page
	}
	word, bit := &page[ino/64%64], uint64(1)<<(ino%64)
	was := *word&bit != 0
	*word |= bit
	return !was
}
