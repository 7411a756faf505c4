package repository

import (
	"time"

	"github.com/restic/chunker"
)

// What tests reach into.

// SetLockTimes makes a repository's locks refresh, settle and get lost sooner.
func (r *Repository) SetLockTimes(refresh, settle, lost time.Duration) {
	r.times = lockTimes{refresh, settle, lost}
}

// Polynomial is that of the configuration.
func (r *Repository) Polynomial() chunker.Pol { return r.cfg.Polynomial }
