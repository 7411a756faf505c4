package image

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/drydock-vm/drydock/internal/atomicfile"
)

// maxRecord bounds a JSON file of the store, in bytes.
const maxRecord = 1 << 20

// Version is one version of an image. Versions are immutable; Current, Bad and
// BadReason are the store's word on it.
type Version struct {
	Image    string    `json:"image"`
	ID       string    `json:"version"`
	Size     int64     `json:"size"`     // bytes
	SHA256   string    `json:"sha256"`   // of the whole disk, hexadecimal
	Sequence int64     `json:"sequence"` // the order of arrival, from 1
	Imported time.Time `json:"imported"`
	Meta     Meta      `json:"meta"`

	Current   bool   `json:"-"`
	Bad       bool   `json:"-"`
	BadReason string `json:"-"`
}

func (v Version) String() string { return v.Image + " " + v.ID }

// Meta is where a version came from.
type Meta struct {
	Origin     string    `json:"origin,omitempty"`      // "builder", or the name of a file
	BuildID    string    `json:"build_id,omitempty"`    // of the build that made it
	SpecDigest string    `json:"spec_digest,omitempty"` // of the specification that it was built from
	Built      time.Time `json:"built,omitzero"`
}

// state is an image's state.json.
type state struct {
	Current string           `json:"current,omitempty"`
	Earlier []string         `json:"earlier,omitempty"` // currents before this one, oldest first
	Bad     map[string]badly `json:"bad,omitempty"`
}

type badly struct {
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

// Images returns the names of the images, sorted.
func (s *Store) Images() ([]string, error) {
	return folders(s.dir)
}

// List returns the versions of an image, newest first.
func (s *Store) List(name string) ([]Version, error) {
	if err := ValidName(name); err != nil {
		return nil, err
	}
	ids, err := folders(filepath.Join(s.dir, name))
	if err != nil {
		return nil, err
	}
	st, err := s.state(name)
	if err != nil {
		return nil, err
	}
	var versions []Version
	for _, id := range ids {
		v, err := s.read(name, id, st)
		if errors.Is(err, os.ErrNotExist) {
			continue // removed since, or not a version
		}
		if err != nil {
			return nil, err
		}
		versions = append(versions, v)
	}
	slices.SortFunc(versions, func(a, b Version) int {
		return cmp.Or(cmp.Compare(b.Sequence, a.Sequence), cmp.Compare(b.ID, a.ID))
	})
	return versions, nil
}

// Get returns one version, or [ErrNoVersion].
func (s *Store) Get(name, id string) (Version, error) {
	if err := validNames(name, id); err != nil {
		return Version{}, err
	}
	st, err := s.state(name)
	if err != nil {
		return Version{}, err
	}
	v, err := s.read(name, id, st)
	if errors.Is(err, os.ErrNotExist) {
		return Version{}, fmt.Errorf("%s %s: %w (drydock images list shows what there is)", name, id, ErrNoVersion)
	}
	return v, err
}

// Current returns the version that disks of this image should have, or
// [ErrNoVersion]. It is never a bad one.
func (s *Store) Current(name string) (Version, error) {
	if err := ValidName(name); err != nil {
		return Version{}, err
	}
	st, err := s.state(name)
	if err != nil {
		return Version{}, err
	}
	if st.Current == "" {
		return Version{}, fmt.Errorf("%s has no current version: %w", name, ErrNoVersion)
	}
	return s.Get(name, st.Current)
}

// Newest returns the newest version that is not bad, or [ErrNoVersion].
func (s *Store) Newest(name string) (Version, error) {
	versions, err := s.List(name)
	if err != nil {
		return Version{}, err
	}
	for _, v := range versions {
		if !v.Bad {
			return v, nil
		}
	}
	return Version{}, fmt.Errorf("%s: %w", name, ErrNoVersion)
}

// ByDigest returns the newest version with that SHA-256, or [ErrNoVersion].
func (s *Store) ByDigest(name, sha256 string) (Version, error) {
	versions, err := s.List(name)
	if err != nil {
		return Version{}, err
	}
	for _, v := range versions {
		if v.SHA256 == sha256 {
			return v, nil
		}
	}
	return Version{}, fmt.Errorf("%s with digest %s: %w", name, sha256, ErrNoVersion)
}

// DiskPath is the file of a version. It must not be changed.
func (s *Store) DiskPath(v Version) string {
	return filepath.Join(s.dir, v.Image, v.ID, diskFile)
}

func (s *Store) read(name, id string, st state) (Version, error) {
	var v Version
	if err := readJSON(filepath.Join(s.dir, name, id, versionFile), &v); err != nil {
		return Version{}, err
	}
	v.Image, v.ID = name, id
	v.Current = st.Current == id
	if bad, ok := st.Bad[id]; ok {
		v.Bad, v.BadReason = true, bad.Reason
	}
	return v, nil
}

func (s *Store) state(name string) (state, error) {
	var st state
	err := readJSON(filepath.Join(s.dir, name, stateFile), &st)
	if errors.Is(err, os.ErrNotExist) {
		return state{}, nil
	}
	return st, err
}

// change edits the state of an image.
func (s *Store) change(name string, edit func(*state) error) error {
	if err := ValidName(name); err != nil {
		return err
	}
	return s.locked(func() error {
		st, err := s.state(name)
		if err != nil {
			return err
		}
		if err := edit(&st); err != nil {
			return err
		}
		return writeJSON(filepath.Join(s.dir, name, stateFile), st)
	})
}

// folders returns the names of the folders in dir that are names of the
// store's, sorted.
func folders(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the image store: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && ValidName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func readJSON(path string, v any) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("read the image store: %w", err)
	}
	if info.Size() > maxRecord {
		return fmt.Errorf("read the image store: %s has %d bytes, more than any record", path, info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the image store: %w", err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read the image store: %s is damaged: %w", path, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write the image store: %w", err)
	}
	if err := atomicfile.Write(path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the image store: %w", spaceError(path, int64(len(data)), err))
	}
	return nil
}
