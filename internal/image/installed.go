package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Installed is what a VM's disk was made from.
type Installed struct {
	VM   string `json:"vm"`
	Disk string `json:"disk"`
	Release
	// Previous is what it was made from before.
	Previous *Release `json:"previous,omitempty"`
}

// Release is a version that was put on a disk.
type Release struct {
	Image   string    `json:"image"`
	Version string    `json:"version"`
	SHA256  string    `json:"sha256"`
	Time    time.Time `json:"time"`
}

// Installed returns what a VM's disk was made from. ok is false where that was
// never by this store.
func (s *Store) Installed(vm, disk string) (in Installed, ok bool, err error) {
	if err := validNames(vm, disk); err != nil {
		return Installed{}, false, err
	}
	err = readJSON(s.installedPath(vm, disk), &in)
	if errors.Is(err, os.ErrNotExist) {
		return Installed{}, false, nil
	}
	return in, err == nil, err
}

// AllInstalled returns what each disk was made from, by VM and disk.
func (s *Store) AllInstalled() ([]Installed, error) {
	paths, err := filepath.Glob(filepath.Join(s.dir, installedDir, "*", "*.json"))
	if err != nil {
		return nil, err
	}
	var all []Installed
	for _, path := range paths {
		var in Installed
		if err := readJSON(path, &in); err != nil {
			return nil, err
		}
		all = append(all, in)
	}
	return all, nil
}

// Commit records that a VM's disk at path has been made from v for good:
// [Store.Undo] does nothing from now on. Committing twice is no error.
func (s *Store) Commit(vm, disk, path string, v Version) error {
	if err := validNames(vm, disk); err != nil {
		return err
	}
	return s.locked(func() error {
		in, ok, err := s.Installed(vm, disk)
		if err != nil {
			return err
		}
		if !ok || in.SHA256 != v.SHA256 || in.Image != v.Image {
			next := Installed{VM: vm, Disk: disk, Release: Release{
				Image: v.Image, Version: v.ID, SHA256: v.SHA256, Time: s.now().UTC(),
			}}
			if ok {
				next.Previous = &in.Release
			}
			file := s.installedPath(vm, disk)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				return fmt.Errorf("record what %s %s was made from: %w", vm, disk, err)
			}
			if err := writeJSON(file, next); err != nil {
				return err
			}
		}
		return s.forgetPrepared(path)
	})
}

// Restored records what a VM's disk at path was made from that came out of a backup: the
// version of the image with that SHA-256. A disk without one, or of a version that this
// store does not have, has no record.
func (s *Store) Restored(vm, disk, path, image, sha256 string) error {
	err := ErrNoVersion
	var v Version
	if sha256 != "" {
		v, err = s.ByDigest(image, sha256)
	}
	if errors.Is(err, ErrNoVersion) {
		return s.Forget(vm, disk)
	}
	if err != nil {
		return err
	}
	return s.Commit(vm, disk, path, v)
}

// Forget removes the record of a VM's disk, as before another is put in its place.
func (s *Store) Forget(vm, disk string) error {
	if err := validNames(vm, disk); err != nil {
		return err
	}
	return remove(s.installedPath(vm, disk))
}

func (s *Store) installedPath(vm, disk string) string {
	return filepath.Join(s.dir, installedDir, vm, disk+".json")
}

// prepared says which file will replace a disk. The file is known by its inode:
// it keeps that when it is renamed, and while it waits or is in place no other
// file can have it.
type prepared struct {
	Path    string `json:"path"` // of the disk, symlinks resolved
	Image   string `json:"image"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
	Device  uint64 `json:"device"`
	Inode   uint64 `json:"inode"`
}

func (s *Store) preparedPath(path string) string {
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(s.dir, preparedDir, hex.EncodeToString(sum[:16])+".json")
}

func (s *Store) recordPrepared(p prepared) error {
	file := s.preparedPath(p.Path)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return writeJSON(file, p)
}

func (s *Store) prepared(path string) (p prepared, ok bool, err error) {
	err = readJSON(s.preparedPath(path), &p)
	if errors.Is(err, os.ErrNotExist) {
		return prepared{}, false, nil
	}
	return p, err == nil && p.Path == path, err
}

func (s *Store) allPrepared() ([]prepared, error) {
	paths, err := filepath.Glob(filepath.Join(s.dir, preparedDir, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []prepared
	for _, path := range paths {
		var p prepared
		if err := readJSON(path, &p); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func (s *Store) forgetPrepared(path string) error {
	real, err := resolve(path)
	if err != nil {
		return err
	}
	return remove(s.preparedPath(real))
}

// resolve returns the file behind path, which may be gone: what lies beside a
// disk lies beside the file, and not beside a link to it.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find the disk: %w", err)
	}
	real, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, os.ErrNotExist) {
		return abs, nil
	}
	if err != nil {
		return "", fmt.Errorf("find the disk: %w", err)
	}
	return real, nil
}
