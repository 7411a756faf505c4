package fusefs

import "sync"

// recentSize is how many values a recent keeps: more than the files that the
// programs of a host read at the same time.
const recentSize = 256

// recent keeps a value for each of the inodes that were used last, so that one
// that is asked for in pieces is not made each time. Where two inodes have the
// same place the later one has it.
type recent[T any] struct {
	mu    sync.Mutex // guards places
	place [recentSize]struct {
		ino   uint64 // 0 where there is none
		value T
	}
}

// get returns the value of ino, and has it made if need be. Several may make it
// at the same time.
func (r *recent[T]) get(ino uint64, produce func(ino uint64) (T, error)) (T, error) {
	p := &r.place[ino%recentSize]
	r.mu.Lock()
	if p.ino == ino {
		defer r.mu.Unlock()
		return p.value, nil
	}
	r.mu.Unlock()
	v, err := produce(ino)
	if err != nil {
		return v, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p.ino, p.value = ino, v
	return v, nil
}
