package verify

import (
	"errors"
	"fmt"
	"sync"

	"github.com/drydock-vm/drydock/internal/repository"
)

// maxLost is how many lost blobs are known one by one, some 100 bytes each. A
// repository that has lost more has lost most of what it had.
const maxLost = 1 << 20

// errTooMany is what is said of every blob when more are lost than can be told
// apart.
var errTooMany = errors.New("so much is lost that it cannot be told what is not")

// lostBlobs are the blobs that cannot be read, and why.
type lostBlobs struct {
	mu    *sync.Mutex // guards what follows
	cause map[repository.Blob]error
}

func newLostBlobs() lostBlobs {
	return lostBlobs{mu: new(sync.Mutex), cause: map[repository.Blob]error{}}
}

func (l *lostBlobs) add(b repository.Blob, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.cause) <= maxLost {
		l.cause[b] = cause
	}
}

// find returns why a blob is lost, or nil.
func (l *lostBlobs) find(b repository.Blob) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.cause) > maxLost {
		return fmt.Errorf("%w: %w", repository.ErrDamaged, errTooMany)
	}
	return l.cause[b]
}

func (l *lostBlobs) any() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.cause) > 0
}
