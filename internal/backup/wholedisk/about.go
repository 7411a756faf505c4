package wholedisk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/drydock-vm/drydock/internal/repository"
)

const (
	// aboutVersion is the version of the description: one that is newer is not
	// used.
	aboutVersion = 1
	// maxAbout bounds a description, in bytes: maxRanges ranges as base64.
	maxAbout = 96 << 20
)

// about is the description of a stored disk, NAME.json.
type about struct {
	Version int   `json:"version"`
	Size    int64 `json:"size"`    // of the disk, in bytes
	Segment int64 `json:"segment"` // bytes
	// Bitmap names the dirty bitmap that was started when the disk was frozen;
	// empty if none was. BitmapGranularity is for people.
	Bitmap            string `json:"bitmap,omitempty"`
	BitmapGranularity int64  `json:"bitmap_granularity,omitempty"`
	// Free says what became of what the guest does not use: "skip" or "keep".
	Free string `json:"free_space"`
	// Out is what was left out though the image has it, as appendSpans has it.
	Out []byte `json:"left_out,omitempty"`
	// SHA256 is the digest of the whole disk, in hexadecimal, if it is a version of
	// an image; empty otherwise.
	SHA256 string `json:"sha256,omitempty"`
}

// stored is a disk in a snapshot.
type stored struct {
	about
	left []span // what was left out
	node *repository.Node
	json *repository.Node
}

// Names of the files of a disk, in the folder [Folder].
const (
	// Folder is where the disks lie in a snapshot, without the "/" in front.
	Folder = "disks"

	imageEnding = ".raw"
	aboutEnding = ".json"
)

// ImagePath is where a disk's image lies in a snapshot.
func ImagePath(disk string) string { return "/" + Folder + "/" + disk + imageEnding }

// Paths are where the files of a disk lie in a snapshot, without the "/" in front.
func Paths(disk string) []string { return []string{ImagePath(disk)[1:], aboutPath(disk)[1:]} }

func aboutPath(disk string) string { return "/" + Folder + "/" + disk + aboutEnding }

const (
	// imageTag begins the tag that a snapshot has for each disk that it has whole.
	imageTag = "image:"
	// versionTag begins the tag of a disk that was made from a version of an image,
	// which is there in the disk's place. Behind the name of the disk comes "=" and
	// that of the version.
	versionTag = "version:"
	// layoutTag begins the tag of a disk whose files are backed up, and of which all
	// else is there in the disk's place: partition tables, boot loaders, LVM, and
	// what its other volumes have in use.
	layoutTag = "layout:"
)

// TagDisk returns the disk that a snapshot's tag says it has whole; false for any other
// tag.
func TagDisk(tag string) (string, bool) { return strings.CutPrefix(tag, imageTag) }

// Has reports whether a snapshot has a disk whole.
func Has(s *repository.Snapshot, disk string) bool { return slices.Contains(s.Tags, imageTag+disk) }

// HasVersion reports whether a snapshot has the version of an image that a disk was
// made from.
func HasVersion(s *repository.Snapshot, disk string) bool {
	return slices.ContainsFunc(s.Tags, func(tag string) bool { return strings.HasPrefix(tag, versionTag+disk+"=") })
}

// HasLayout reports whether a snapshot has what is around the files of a disk.
func HasLayout(s *repository.Snapshot, disk string) bool {
	return slices.Contains(s.Tags, layoutTag+disk)
}

// tags begin the tags of what lies in [Folder].
var tags = []string{imageTag, versionTag, layoutTag}

// IsTag reports whether a tag is that of something in [Folder].
func IsTag(tag string) bool {
	return slices.ContainsFunc(tags, func(begin string) bool { return strings.HasPrefix(tag, begin) })
}

// Stored reports whether a snapshot has something of a disk in [Folder]: all of it,
// or what belongs to its files.
func Stored(s *repository.Snapshot, disk string) bool {
	return slices.ContainsFunc(s.Tags, func(tag string) bool {
		name, _, _ := strings.Cut(tag, "=")
		return IsTag(tag) && strings.HasSuffix(name, ":"+disk)
	})
}

// load finds a disk in a snapshot; nil if it has none of that name, or has its files.
func load(ctx context.Context, repo *repository.Repository, s *repository.Snapshot, disk string) (*stored, error) {
	if s == nil {
		return nil, nil
	}
	top, err := repo.Children(ctx, s.Tree, Folder)
	if err != nil || top[0] == nil || top[0].Subtree == nil {
		return nil, err
	}
	both, err := repo.Children(ctx, *top[0].Subtree, disk+imageEnding, disk+aboutEnding)
	if err != nil || both[0] == nil || both[1] == nil {
		return nil, err
	}
	out := &stored{node: both[0], json: both[1]}
	if err := out.read(ctx, repo); err != nil {
		return nil, fmt.Errorf("read %s: %w", aboutPath(disk), err)
	}
	return out, nil
}

// errAbout is of a description that cannot be that of the image beside it.
var errAbout = errors.New("it does not describe the image beside it")

// read reads the description, and checks it.
func (o *stored) read(ctx context.Context, repo *repository.Repository) error {
	if o.node.Type != repository.NodeFile {
		return errAbout
	}
	text, err := repo.LoadSmall(ctx, o.json, maxAbout)
	if errors.Is(err, repository.ErrLimit) {
		return errAbout
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &o.about); err != nil {
		return err
	}
	if o.Version != aboutVersion || o.Size < 0 || uint64(o.Size) != o.node.Size || !validSegment(o.Segment) ||
		len(o.node.Content) != count(o.Size, o.Segment) {
		return errAbout
	}
	o.left, err = decodeSpans(o.Out, o.Size)
	o.Out = nil
	return err
}

// errFound ends a search.
var errFound = errors.New("found")
