package backup

import (
	"slices"
	"sync"
	"time"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/repository"
)

const (
	// maxDamaged is how many damaged files a report names. All are counted.
	maxDamaged = 100
	// maxWarnings is how many warnings a report keeps.
	maxWarnings = 20
)

// Report is what a backup did. Files are all that is no directory.
type Report struct {
	ID     repository.ID // of the snapshot
	Tree   repository.ID
	Parent *repository.ID

	FilesNew, FilesChanged, FilesUnchanged int64
	DirsNew, DirsChanged, DirsUnchanged    int64

	BytesTotal  int64 // of the guest's files
	BytesRead   int64 // from the guest's disks, holes not counted
	BytesStored int64 // added to the repository, compressed
	Duration    time.Duration

	// LeftOut counts what was left out on purpose, by disk and rule, in the order in
	// which that happened first.
	LeftOut []LeftOut

	// Damaged names what could not be read and is not in the backup, or not in
	// whole, in the order in which it was found. It has room for the first 100, and
	// DamagedTotal counts all.
	Damaged      []Damage
	DamagedTotal int64
	// Warnings are about the repository, the first few of them.
	Warnings []error

	objects        [3]int64 // by change; they are in none of the above
	objectBytes    int64
	started, ended time.Time
	before, added  repository.Added

	mu sync.Mutex // guards all during a run
}

// Damage is one thing that could not be backed up.
type Damage struct {
	Disk string
	Path []byte // in the guest; hostile bytes
	Err  error
}

// LeftOut is what one rule has left out of one disk.
type LeftOut struct {
	Disk string
	// Rule is the pattern, or the key of the configuration: "include",
	// "exclude_caches", "exclude_nodump", "exclude_larger_than", "btrfs_snapshots".
	Rule  string
	Files int64 // all that is no folder
	Dirs  int64 // what is in them was not looked at, and is not counted
	Bytes int64 // the sizes of Files
}

func (r *Report) leaveOut(diskName, rule string, inode *disk.Inode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.LeftOut, func(l LeftOut) bool { return l.Disk == diskName && l.Rule == rule })
	if i < 0 {
		i = len(r.LeftOut)
		r.LeftOut = append(r.LeftOut, LeftOut{Disk: diskName, Rule: rule})
	}
	l := &r.LeftOut[i]
	switch inode.Type() {
	case disk.ModeDir:
		l.Dirs++
		return
	case disk.ModeRegular:
		l.Bytes = disk.AddSizes(l.Bytes, inode.Size)
	}
	l.Files++
}

func (r *Report) warn(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.Warnings) < maxWarnings {
		r.Warnings = append(r.Warnings, err)
	}
}

func (r *Report) damage(disk string, path []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.DamagedTotal++
	if len(r.Damaged) < maxDamaged {
		r.Damaged = append(r.Damaged, Damage{Disk: disk, Path: append([]byte(nil), path...), Err: err})
	}
}

// stored counts bytes that were added to the repository.
func (r *Report) stored(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.BytesStored += n
}

// Change is how something compares with the parent.
type Change uint8

// The changes.
const (
	Unchanged Change = iota
	Changed
	Added
)

func (r *Report) file(c Change, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.BytesTotal += size
	*[]*int64{&r.FilesUnchanged, &r.FilesChanged, &r.FilesNew}[c]++
}

func (r *Report) object(c Change, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.objects[c]++
	r.objectBytes += size
}

func (r *Report) dir(c Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*[]*int64{&r.DirsUnchanged, &r.DirsChanged, &r.DirsNew}[c]++
}

func (r *Report) read(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.BytesRead += n
}

func (r *Report) progress(path []byte) Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Progress{
		Files: r.FilesNew + r.FilesChanged + r.FilesUnchanged,
		Dirs:  r.DirsNew + r.DirsChanged + r.DirsUnchanged,
		Bytes: r.BytesTotal, Path: path,
	}
}

// summary is what restic shows of a snapshot, counted as restic does: of all that is
// in it, images of whole disks and definitions too.
func (r *Report) summary() *repository.SnapshotSummary {
	s := &repository.SnapshotSummary{
		BackupStart: r.started, BackupEnd: r.ended,
		FilesNew:        uint64(r.FilesNew + r.objects[Added]),
		FilesChanged:    uint64(r.FilesChanged + r.objects[Changed]),
		FilesUnmodified: uint64(r.FilesUnchanged + r.objects[Unchanged]),
		DirsNew:         uint64(r.DirsNew), DirsChanged: uint64(r.DirsChanged), DirsUnmodified: uint64(r.DirsUnchanged),
		DataBlobs: uint64(r.added.DataBlobs), TreeBlobs: uint64(r.added.TreeBlobs),
		DataAdded: uint64(r.added.Bytes), DataAddedPacked: uint64(r.added.Stored),
		TotalBytesProcessed: uint64(r.BytesTotal + r.objectBytes),
	}
	s.TotalFilesProcessed = s.FilesNew + s.FilesChanged + s.FilesUnmodified
	return s
}
