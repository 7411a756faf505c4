// Package backend is the contract between a repository and the place that keeps
// its files: a folder, an SFTP server, an object store, a REST server.
//
// A backend stores whole files that never change, by [Handle]. It knows nothing
// of what is in them: everything but the key files is encrypted before it gets
// here, and nothing that comes back is trusted. Every implementation passes the
// tests of backendtest.
package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The errors of a [Backend], found with [errors.Is].
var (
	// ErrNotExist is of a file that is not there.
	ErrNotExist = errors.New("file does not exist")
	// ErrExist is of a file that is there already.
	ErrExist = errors.New("file already exists")
	// ErrUnreadable is of a part of a file that is there, and that its disk does
	// not give back: a bad sector, or a block that a filesystem with checksums
	// knows to be wrong. Other parts may be whole.
	ErrUnreadable = errors.New("the disk cannot read it")
	// ErrServer is of what a server has taken, and answered that it could not do. The
	// cause may pass; a full disk, of which many servers say no more, will not soon.
	ErrServer = errors.New("the server failed")
)

const (
	// HintLate is the likely fix where a server answers too late.
	HintLate = "is it overloaded, or repository.timeout too short?"
	// HintFailed is where the cause is of [ErrServer].
	HintFailed = "the server's own log says more; is its disk full?"
)

// FileType is a kind of file of a repository. Its value is the folder's name in
// restic's default layout, as S3 and REST servers spell it too.
type FileType string

// The kinds of file. There is one ConfigFile, without a name. ParityFile is
// drydock's own, beside those of restic: REST servers know no such kind, and refuse
// it with [ErrRefused].
const (
	ConfigFile   FileType = "config"
	KeyFile      FileType = "keys"
	LockFile     FileType = "locks"
	SnapshotFile FileType = "snapshots"
	IndexFile    FileType = "index"
	PackFile     FileType = "data"
	ParityFile   FileType = "ecc" // of the pack of the same name
)

// Handle names a file of a repository.
type Handle struct {
	Type FileType
	Name string // 64 lower-case hex digits; empty for ConfigFile
}

// String is the file's path in restic's layout, without the two-digit folder of
// packs: "snapshots/1f3a…".
func (h Handle) String() string {
	if h.Type == ConfigFile {
		return string(ConfigFile)
	}
	return string(h.Type) + "/" + h.Name
}

// PackDigits are the hex digits of a pack's name that name its folder, and that of
// its parity.
const PackDigits = 2

// Split reports whether files of type t lie in folders of [PackDigits].
func (t FileType) Split() bool { return t == PackFile || t == ParityFile }

// Path is where the file is in restic's default layout, with slashes: "config",
// "data/1f/1f3a…", "snapshots/1f3a…". It is of a handle that passes
// [Handle.Validate].
func (h Handle) Path() string {
	if h.Type.Split() {
		return string(h.Type) + "/" + h.Name[:PackDigits] + "/" + h.Name
	}
	return h.String()
}

// nameLength is the length of a name: a SHA-256 sum in hex.
const nameLength = 64

// Validate returns an error unless h is the name of a file that a repository can
// have. What passes holds no character that a path could be made with.
func (h Handle) Validate() error {
	switch h.Type {
	case ConfigFile:
		if h.Name != "" {
			return fmt.Errorf("the config file has no name, not %q", h.Name)
		}
		return nil
	case KeyFile, LockFile, SnapshotFile, IndexFile, PackFile, ParityFile:
		if !ValidName(h.Name) {
			return fmt.Errorf("%q is not a name of a file in %s", h.Name, h.Type)
		}
		return nil
	}
	return fmt.Errorf("unknown file type %q", h.Type)
}

// ValidName reports whether name is 64 lower-case hex digits. What else lies in
// a repository's folders is somebody's, and is passed over.
func ValidName(name string) bool {
	if len(name) != nameLength {
		return false
	}
	for i := range len(name) {
		if c := name[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// UnfinishedByRestic reports whether name is that of a file that restic was writing, to a
// folder ("NAME-tmp-…") or over SFTP ("NAME-restic-temp-…"): a restic that was killed
// leaves it, and no restic removes it.
func UnfinishedByRestic(name string) bool {
	if len(name) <= nameLength || !ValidName(name[:nameLength]) {
		return false
	}
	rest := name[nameLength:]
	return strings.HasPrefix(rest, "-tmp-") || strings.HasPrefix(rest, "-restic-temp-")
}

// FileInfo is what a listing tells of a file.
type FileInfo struct {
	Name string
	Size int64 // bytes
	// ModTime is when the file was stored, by the clock of whoever keeps it;
	// zero where that does not tell.
	ModTime time.Time
}

// Backend keeps the files of one repository. All methods are safe for concurrent
// use, refuse a handle that does not pass [Handle.Validate], and return when ctx
// is done, with its error.
type Backend interface {
	// Save stores data under h. When it returns nil the file is whole and
	// durable, also after a loss of power; when it returns an error there is
	// no file h, or the whole of it (on the other side of a network: as far as
	// package retry could ask). It never changes a file: one that is there is
	// [ErrExist]. Data is not kept, nor changed.
	Save(ctx context.Context, h Handle, data []byte) error

	// ReadAt fills p from offset off of file h, as [io.ReaderAt] does: fewer
	// bytes come with an error, which is io.EOF at the end of the file. A
	// missing file is [ErrNotExist], and a bad sector is [ErrUnreadable], where
	// the place tells.
	ReadAt(ctx context.Context, h Handle, p []byte, off int64) (int, error)

	// Stat returns the size of file h, or [ErrNotExist].
	Stat(ctx context.Context, h Handle) (FileInfo, error)

	// List calls yield for each file of type t with a valid name, in any
	// order, and stops at the first error of yield and returns that. Files that
	// come or go meanwhile may be seen or not. No folder is an empty list.
	List(ctx context.Context, t FileType, yield func(FileInfo) error) error

	// Remove removes file h durably. A missing file is [ErrNotExist].
	Remove(ctx context.Context, h Handle) error
}

// ListConfig is a [Backend]'s List of [ConfigFile], by its Stat.
func ListConfig(ctx context.Context, be Backend, yield func(FileInfo) error) error {
	info, err := be.Stat(ctx, Handle{Type: ConfigFile})
	switch {
	case errors.Is(err, ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return yield(info)
}

// Replacer is a [Backend] that can put a file in the place of a damaged one.
type Replacer interface {
	// Replace stores data under h, as Save does, whether or not a file is
	// there: until it returns nil the old file may be there, or the new one,
	// and never a part of one.
	Replace(ctx context.Context, h Handle, data []byte) error
}

// Sweeper is a [Backend] on which a writer that dies leaves something that a
// listing passes over: unfinished uploads, temporary files.
type Sweeper interface {
	// Sweep removes what writers that died left behind before the given time.
	// Nothing that a living writer needs is older than a few minutes.
	Sweep(ctx context.Context, before time.Time) error
}

// Renewer is a [Backend] that can keep files from being destroyed for a time.
type Renewer interface {
	// Renew has file h kept for as long as one that is stored now. Where nothing is
	// kept so, it does nothing.
	Renew(ctx context.Context, h Handle) error
}
