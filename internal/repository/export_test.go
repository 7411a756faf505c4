package repository

import (
	"bytes"
	"time"

	"github.com/restic/chunker"
)

// What tests reach into.

// SetLockTimes makes a repository's locks refresh, settle and get lost sooner.
func (r *Repository) SetLockTimes(refresh, settle, lost time.Duration) {
	r.times = lockTimes{refresh, settle, lost}
}

// Bytes are those of a tree.
func (t *Tree) Bytes() []byte {
	var b bytes.Buffer
	if _, err := t.writeTo(&b); err != nil {
		panic(err) // it was read before
	}
	return b.Bytes()
}

// Polynomial is that of the configuration.
func (r *Repository) Polynomial() chunker.Pol { return r.cfg.Polynomial }
