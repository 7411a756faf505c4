package repository

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/drydock-vm/drydock/internal/repository/backend"
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

// SaveSnapshot stores s durably and returns its ID, which it also sets in s.
// Everything that s reaches must have been flushed before: see
// [Repository.Flush]. A tree that was not is [ErrBlobNotFound].
func (r *Repository) SaveSnapshot(ctx context.Context, s *Snapshot) (ID, error) {
	const op = "save snapshot"
	if err := r.writable(); err != nil {
		return ID{}, err
	}
	if err := s.validate(); err != nil {
		return ID{}, &Error{Op: op, Err: err}
	}
	if !r.flushed(TreeBlob, s.Tree) {
		return ID{}, &Error{Op: op, Err: fmt.Errorf("its tree %s was not saved and flushed: %w", s.Tree.Short(), ErrBlobNotFound)}
	}
	plain, err := json.Marshal(s)
	if err != nil {
		return ID{}, &Error{Op: op, Err: err}
	}
	id, err := r.saveFile(ctx, op, backend.SnapshotFile, plain)
	if err != nil {
		return ID{}, err
	}
	s.ID = id
	return id, nil
}

// validate refuses what no snapshot can be.
func (s *Snapshot) validate() error {
	if s.Tree.IsZero() {
		return errors.New("the snapshot has no tree")
	}
	if s.Time.IsZero() {
		return errors.New("the snapshot has no time")
	}
	return nil
}

// maxSnapshotSize bounds the plaintext of a snapshot file. Restic's have some 500
// bytes, and what was backed up and excluded on top; lists of empty strings take five
// times as much memory.
const maxSnapshotSize = 16 << 20

// decodeSnapshot reads the plaintext of a snapshot file.
func decodeSnapshot(plain []byte) (*Snapshot, error) {
	var s Snapshot
	if len(plain) > maxSnapshotSize {
		return nil, fmt.Errorf("%w: %d bytes, and the limit is %d", ErrLimit, len(plain), maxSnapshotSize)
	}
	if err := json.Unmarshal(plain, &s); err != nil {
		return nil, err
	}
	return &s, s.validate()
}

// LoadSnapshot returns the snapshot of that ID. A missing one is
// [backend.ErrNotExist].
func (r *Repository) LoadSnapshot(ctx context.Context, id ID) (*Snapshot, error) {
	const op = "load snapshot"
	plain, err := r.loadFile(ctx, op, backend.SnapshotFile, id)
	var s *Snapshot
	if err == nil {
		if s, err = decodeSnapshot(plain); err != nil {
			err = damaged(op, backend.Handle{Type: backend.SnapshotFile, Name: id.String()}, "%w", err)
		}
	}
	var e *Error
	if errors.Is(err, ErrDamaged) && errors.As(err, &e) {
		e.Hint = fmt.Sprintf("drydock verify --repair brings it back if another place has it; drydock backups rm --unreadable %s takes its file away; at a copy, both with --copy", id.Short())
	}
	if err != nil {
		return nil, err
	}
	s.ID = id
	return s, nil
}

// Snapshots returns all snapshots, oldest first. A snapshot that cannot be read
// does not hide the others: they are returned together with an error that names
// the ones that are missing. One that is removed meanwhile is no error.
func (r *Repository) Snapshots(ctx context.Context) ([]*Snapshot, error) {
	ids, err := r.listFiles(ctx, "list snapshots", backend.SnapshotFile)
	if err != nil {
		return nil, err
	}
	loaded := make([]*Snapshot, len(ids))
	errs := make([]error, len(ids))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, id := range ids {
		g.Go(func() error {
			loaded[i], errs[i] = r.LoadSnapshot(ctx, id)
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for i, err := range errs {
		if errors.Is(err, backend.ErrNotExist) {
			errs[i] = nil
		}
	}
	snapshots := slices.DeleteFunc(loaded, func(s *Snapshot) bool { return s == nil })
	slices.SortFunc(snapshots, func(a, b *Snapshot) int {
		if c := a.Time.Compare(b.Time); c != 0 {
			return c
		}
		return bytes.Compare(a.ID[:], b.ID[:])
	})
	return snapshots, errors.Join(errs...)
}

// DamagedSnapshots returns the snapshot files that cannot be read, which are none of
// those that were read. What keeps us from looking is an error.
func (r *Repository) DamagedSnapshots(ctx context.Context, read []*Snapshot) ([]ID, error) {
	ids, err := r.listFiles(ctx, "list snapshots", backend.SnapshotFile)
	if err != nil {
		return nil, err
	}
	fine := make(map[ID]bool, len(read))
	for _, s := range read {
		fine[s.ID] = true
	}
	return damagedFiles(ids, func(id ID) error {
		if fine[id] {
			return nil
		}
		_, err := r.LoadSnapshot(ctx, id)
		return err
	})
}

// SetTags gives a snapshot other tags, as restic tag does: a new snapshot with the
// first one's ID as its original is stored, and then the old one removed. It
// returns the new one. The caller holds an exclusive lock, and has loaded the
// index.
//
// Who dies in between leaves both, which are the same backup; SetTags on either
// removes the other.
func (r *Repository) SetTags(ctx context.Context, old *Snapshot, tags []string) (*Snapshot, error) {
	s := *old
	s.Tags = tags
	first := old.first()
	s.Original = &first
	all, err := r.Snapshots(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	if _, err := r.SaveSnapshot(ctx, &s); err != nil {
		return nil, err
	}
	for _, other := range all {
		if other.sameBackup(old) && other.ID != s.ID {
			if err := r.RemoveSnapshot(ctx, other.ID); err != nil && !errors.Is(err, backend.ErrNotExist) {
				return &s, err
			}
		}
	}
	return &s, nil
}

// first is the ID that the snapshot had before its tags were changed.
func (s *Snapshot) first() ID {
	if s.Original != nil {
		return *s.Original
	}
	return s.ID
}

// sameBackup reports whether the two differ in nothing but their tags. An
// original is what somebody wrote, so that alone proves nothing.
func (s *Snapshot) sameBackup(o *Snapshot) bool {
	return s.first() == o.first() && s.Tree == o.Tree && s.Time.Equal(o.Time) && s.Hostname == o.Hostname
}

// RemoveSnapshot removes the snapshot of that ID. What only it reached stays
// until restic prune runs. The caller holds an exclusive lock, as restic forget
// does. A missing one is [backend.ErrNotExist].
func (r *Repository) RemoveSnapshot(ctx context.Context, id ID) error {
	h := backend.Handle{Type: backend.SnapshotFile, Name: id.String()}
	if err := r.be.Remove(ctx, h); err != nil {
		return &Error{Op: "remove snapshot", File: h.String(), Err: err}
	}
	return nil
}
