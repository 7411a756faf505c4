package ext4

import (
	"fmt"
	"time"

	"github.com/drydock-vm/drydock/disk/internal/ondisk"
)

// The bits of s_state.
const (
	stateValid = 0x1
	stateError = 0x2
)

// recordedErrors is what the guest's kernel found wrong since the last e2fsck.
// What it says of the places is left out: those names are hostile bytes.
type recordedErrors struct {
	count       uint32
	first, last int64 // seconds since 1970
}

func parseErrors(c *ondisk.Cursor) (e recordedErrors) {
	c.Seek(0x194)
	e.count = c.U32()
	e.first = int64(c.U32())
	c.Seek(0x1cc)
	e.last = int64(c.U32())
	c.Seek(0x278)
	e.first |= int64(c.U8()) << 32
	e.last |= int64(c.U8()) << 32
	return e
}

// remarks are those of [disk.FilesystemInfo].
func (fs *Filesystem) remarks() []string {
	var list []string
	note := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	r, sb := fs.replayed, fs.sb
	if r.transactions+r.fastCommits > 0 {
		note("the journal was replayed in memory: %d transactions, %d fast commits", r.transactions, r.fastCommits)
	}
	if r.torn {
		note("a fast commit in the journal is incomplete and was left out: the guest may ask for e2fsck")
	}
	if r.errno != 0 {
		note("the guest's kernel gave the journal up, with error %d", int32(r.errno))
	}
	switch e := sb.errors; {
	case e.count > 0:
		note("errors were recorded by the guest's kernel: %d, the first at %s, the last at %s; run e2fsck in the guest",
			e.count, formatTime(e.first), formatTime(e.last))
	case sb.state&stateError != 0:
		note("errors were recorded by the guest's kernel; run e2fsck in the guest")
	}
	if sb.state&stateValid == 0 && sb.compat&compatHasJournal == 0 {
		note("the filesystem was not unmounted cleanly and has no journal: what was written last may be incomplete")
	}
	if sb.lastOrphan != 0 || sb.ro&roOrphanPresent != 0 {
		note("files that were deleted while they were in use still take up space, until the guest mounts the filesystem")
	}
	return list
}

func formatTime(sec int64) string { return time.Unix(sec, 0).UTC().Format(time.RFC3339) }
