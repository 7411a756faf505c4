package repository

import "time"

// What tests reach into.

// SetLockTimes makes a repository's locks refresh, settle and get lost sooner.
func (r *Repository) SetLockTimes(refresh, settle, lost time.Duration) {
	r.times = lockTimes{refresh, settle, lost}
}
