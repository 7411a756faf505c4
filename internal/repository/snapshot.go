package repository

import (
	"context"
	"time"
)

// Snapshot is a tree at one point in time, with restic's names for its fields.
type Snapshot struct {
	Time     time.Time `json:"time"`
	Parent   *ID       `json:"parent,omitempty"` // the snapshot that this one was made faster with
	Tree     ID        `json:"tree"`
	Paths    []string  `json:"paths"` // absolute; what was backed up
	Hostname string    `json:"hostname,omitempty"`
	Username string    `json:"username,omitempty"`
	UID      uint32    `json:"uid,omitempty"`
	GID      uint32    `json:"gid,omitempty"`
	Excludes []string  `json:"excludes,omitempty"`
	Tags     []string  `json:"tags,omitempty"`
	Original *ID       `json:"original,omitempty"` // the first ID, after restic changed tags

	ProgramVersion string           `json:"program_version,omitempty"` // "drydock 1.0"
	Summary        *SnapshotSummary `json:"summary,omitempty"`

	// ID is the snapshot file's name. It is not part of the file.
	ID ID `json:"-"`
}

// SnapshotSummary counts what a backup did. Restic shows it since 0.17.
type SnapshotSummary struct {
	BackupStart         time.Time `json:"backup_start"`
	BackupEnd           time.Time `json:"backup_end"`
	FilesNew            uint64    `json:"files_new"`
	FilesChanged        uint64    `json:"files_changed"`
	FilesUnmodified     uint64    `json:"files_unmodified"`
	DirsNew             uint64    `json:"dirs_new"`
	DirsChanged         uint64    `json:"dirs_changed"`
	DirsUnmodified      uint64    `json:"dirs_unmodified"`
	DataBlobs           uint64    `json:"data_blobs"`
	TreeBlobs           uint64    `json:"tree_blobs"`
	DataAdded           uint64    `json:"data_added"`        // bytes before compression
	DataAddedPacked     uint64    `json:"data_added_packed"` // bytes as stored
	TotalFilesProcessed uint64    `json:"total_files_processed"`
	TotalBytesProcessed uint64    `json:"total_bytes_processed"`
}

// SaveSnapshot stores s durably and returns its ID. Everything that s reaches
// must have been flushed before: see [Repository.Flush].
func (r *Repository) SaveSnapshot(ctx context.Context, s *Snapshot) (ID, error) {
	return ID{}, errSkeleton
}

// LoadSnapshot returns the snapshot of that ID.
func (r *Repository) LoadSnapshot(ctx context.Context, id ID) (*Snapshot, error) {
	return nil, errSkeleton
}

// Snapshots returns all snapshots, oldest first. A snapshot that cannot be read
// does not hide the others: they are returned together with an error that names
// the ones that are missing.
func (r *Repository) Snapshots(ctx context.Context) ([]*Snapshot, error) {
	return nil, errSkeleton
}

// RemoveSnapshot removes the snapshot of that ID. What only it reached stays
// until restic prune runs. The caller holds an exclusive lock. A missing one is
// [backend.ErrNotExist].
func (r *Repository) RemoveSnapshot(ctx context.Context, id ID) error { return errSkeleton }
