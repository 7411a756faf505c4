package wholedisk

import (
	"fmt"
	"sync"
)

// maxDamaged is how many damaged ranges a report names. All are counted.
const maxDamaged = 20

// Report is what became of one disk. Bytes of the disk are in Unchanged, Zero,
// Free, Swap or Read.
type Report struct {
	Disk string
	Size int64

	Unchanged int64 // not looked at: the bitmap says so
	Zero      int64 // the image format knows that they are zeros
	Free      int64 // freed by a filesystem
	Swap      int64 // swap space
	Read      int64
	Stored    int64 // added to the repository, compressed

	// Layout is that of the [Source].
	Layout bool

	// Bitmap names the dirty bitmap that said what had changed. Where there is
	// none, Whole says why all of the disk was looked at.
	Bitmap, Whole string

	// Kept says of volumes why nothing of them was left out as free.
	Kept []error

	// Damaged says what could not be read and is zeros in the backup.
	Damaged      []error
	DamagedTotal int64 // bytes
	Warnings     []error

	mu sync.Mutex // guards Stored during a run
}

func (r *Report) stored(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Stored += n
}

func (r *Report) damaged(s span, err error) {
	r.DamagedTotal += s.end - s.start
	if len(r.Damaged) < maxDamaged {
		r.Damaged = append(r.Damaged, fmt.Errorf("disk %s: %d bytes at %d: %w", r.Disk, s.end-s.start, s.start, err))
	}
}
