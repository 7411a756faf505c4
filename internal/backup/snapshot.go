package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/drydock-vm/drydock/internal/repository"
)

// TagProgram is the tag that every snapshot of drydock has. Beside it a snapshot
// has "vm=NAME", "round=ID" where a round made it, and for each disk
// "disk:NAME=MOUNT", "id:NAME=HASH" and "fs:NAME=TYPE:UUID:BYTES:LABEL", with which
// its filesystem can be made anew, and those of its objects. Somebody may have added
// [TagPinned] and a note, "note=TEXT".
const TagProgram = "drydock"

// TagPinned is the tag of a snapshot that no policy removes. Any restic client
// sets it (restic tag --add pinned) and honours it (forget --keep-tag pinned).
const TagPinned = "pinned"

// tagNote begins the tag with what somebody wrote about a snapshot.
const tagNote = "note="

// IsOurs reports whether drydock made the snapshot.
func IsOurs(s *repository.Snapshot) bool { return slices.Contains(s.Tags, TagProgram) }

// IsPinned reports whether no policy removes the snapshot.
func IsPinned(s *repository.Snapshot) bool { return slices.Contains(s.Tags, TagPinned) }

// Note returns what somebody wrote about the snapshot, or "". It comes from the
// repository: escape it.
func Note(s *repository.Snapshot) string {
	for _, t := range s.Tags {
		if text, ok := strings.CutPrefix(t, tagNote); ok {
			return text
		}
	}
	return ""
}

// WithPin returns the snapshot's tags with or without the pin.
func WithPin(s *repository.Snapshot, pinned bool) []string {
	tags := slices.DeleteFunc(slices.Clone(s.Tags), func(t string) bool { return t == TagPinned })
	if pinned {
		tags = append(tags, TagPinned)
	}
	return tags
}

// maxNote is the longest note, in bytes: tags are printed in one line, by restic
// too.
const maxNote = 200

// ErrNote is of a text that cannot be a note.
var ErrNote = fmt.Errorf("a note is one line of at most %d bytes, without a comma, at which restic would cut it", maxNote)

// WithNote returns the snapshot's tags with a note, or without one if text is "".
func WithNote(s *repository.Snapshot, text string) ([]string, error) {
	if len(text) > maxNote || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r == ',' || unicode.IsControl(r) }) {
		return nil, ErrNote
	}
	tags := slices.DeleteFunc(slices.Clone(s.Tags), func(t string) bool { return strings.HasPrefix(t, tagNote) })
	if text != "" {
		tags = append(tags, tagNote+text)
	}
	return tags, nil
}

// Find returns the snapshots of a VM that drydock made, oldest first. They may
// come with an error about others that cannot be read.
func Find(ctx context.Context, repo *repository.Repository, vm string) ([]*repository.Snapshot, error) {
	all, err := repo.Snapshots(ctx)
	return slices.DeleteFunc(all, func(s *repository.Snapshot) bool {
		return s.Hostname != vm || !IsOurs(s)
	}), err
}

// DiskMount returns where a disk is in a snapshot's tree; false if it has no disk
// of that name.
func DiskMount(s *repository.Snapshot, disk string) (string, bool) {
	for _, t := range s.Tags {
		if mount, ok := strings.CutPrefix(t, "disk:"+disk+"="); ok {
			return mount, true
		}
	}
	return "", false
}

// Mounts returns where the disks are whose files a snapshot has, by their names.
func Mounts(s *repository.Snapshot) map[string]string {
	mounts := map[string]string{}
	for _, t := range s.Tags {
		if text, ok := strings.CutPrefix(t, "disk:"); ok {
			name, mount, _ := strings.Cut(text, "=")
			mounts[name] = mount
		}
	}
	return mounts
}

// nodesVersion changes when nodes keep more than before: what the parent lacks is
// read again. Version 2 keeps holes and flags.
const nodesVersion = 2

// DiskFilesystem is what a snapshot tells of the filesystem that a disk had.
type DiskFilesystem struct {
	Type  string // "ext4"
	UUID  [16]byte
	Size  int64  // bytes; 0 where it is not known
	Label []byte // hostile bytes
}

// tag is the filesystem as a tag has it: the UUID in hexadecimal, and in the label
// what is no plain character as in URLs.
func (f *DiskFilesystem) tag(disk string) string {
	return fmt.Sprintf("fs:%s=%s:%x:%d:%s", disk, f.Type, f.UUID, f.Size, url.PathEscape(string(f.Label)))
}

// FilesystemOf returns the filesystem that a disk had; false where the snapshot does
// not tell.
func FilesystemOf(s *repository.Snapshot, disk string) (f DiskFilesystem, ok bool) {
	for _, t := range s.Tags {
		text, ok := strings.CutPrefix(t, "fs:"+disk+"=")
		fields := strings.Split(text, ":")
		if !ok || len(fields) != 4 || len(text) > maxTag {
			continue
		}
		uuid, err := hex.DecodeString(fields[1])
		size, serr := strconv.ParseInt(fields[2], 10, 64)
		label, lerr := url.PathUnescape(fields[3])
		if err != nil || serr != nil || lerr != nil || size < 0 || len(uuid) != len(f.UUID) {
			continue
		}
		return DiskFilesystem{Type: fields[0], UUID: [16]byte(uuid), Size: size, Label: []byte(label)}, true
	}
	return f, false
}

// maxTag bounds a tag that is read, in bytes: three times the longest label.
const maxTag = 1024

// identityTag is the snapshot's tag from which the next backup sees whether it
// reads the same disk.
func (s *Source) identityTag() string {
	h := sha256.New()
	uuid := s.FS.Info().UUID
	h.Write(uuid[:])
	h.Write([]byte(s.Identity))
	h.Write([]byte{0, nodesVersion})
	return "id:" + s.Disk + "=" + hex.EncodeToString(h.Sum(nil)[:8])
}

func newSnapshot(tree repository.ID, parent *repository.Snapshot, sources []Source, opts Options, r *Report) *repository.Snapshot {
	s := &repository.Snapshot{
		Time: opts.Time, Tree: tree, Paths: []string{"/"}, Hostname: opts.VM, Username: "root",
		Tags: []string{TagProgram, "vm=" + opts.VM}, ProgramVersion: opts.Program,
		Summary: r.summary(),
	}
	if opts.Round != "" {
		s.Tags = append(s.Tags, "round="+opts.Round)
	}
	for i := range sources {
		src := &sources[i]
		info := src.FS.Info()
		fs := DiskFilesystem{Type: info.Type, UUID: info.UUID, Size: info.Size, Label: info.Label}
		s.Tags = append(s.Tags, "disk:"+src.Disk+"="+src.Mount, src.identityTag(), fs.tag(src.Disk))
		for _, p := range src.rules() {
			s.Excludes = append(s.Excludes, src.Disk+": "+p)
		}
	}
	if parent != nil {
		s.Parent = &parent.ID
	}
	return s
}
