package definition

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/repository"
)

const (
	// maxDefinition bounds a definition, in bytes. One with all the disks and files
	// that it may have takes half of it.
	maxDefinition = 4 << 20
	// maxConfig bounds a part of the configuration, in bytes. One VM with ten disks
	// takes 5 KB, and to parse YAML takes time with the square of its lines.
	maxConfig = 256 << 10
)

// Load returns the definition in a snapshot, whose tree is fsys. A snapshot without
// one is [ErrNone]: what the guest itself has in the folder is none.
func Load(fsys disk.Filesystem, s *repository.Snapshot) (*Definition, error) {
	if !slices.Contains(s.Tags, Tag) {
		return nil, fmt.Errorf("backup %s: %w (drydock stores one since this version)", s.ID.Short(), ErrNone)
	}
	text, err := readSmall(fsys, definitionPath, maxDefinition)
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", s.ID.Short(), err)
	}
	d, err := Parse(text)
	if err == nil && d.VM != s.Hostname {
		err = fmt.Errorf("%w: it is of another VM", ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", s.ID.Short(), err)
	}
	return d, nil
}

// LoadConfig returns drydock's part of the configuration.
func LoadConfig(fsys disk.Filesystem) ([]byte, error) { return readSmall(fsys, configPath, maxConfig) }

// Open opens a file of the host that is in the backup. Its digest is for the reader
// to check.
func Open(fsys disk.Filesystem, f *File) (io.Reader, error) {
	content, err := open(fsys, filesPath+f.Path)
	if err != nil {
		return nil, err
	}
	if content.Size() != f.Size {
		return nil, fmt.Errorf("%s: %w: it has %d bytes in the backup, and should have %d", f.Path, ErrInvalid, content.Size(), f.Size)
	}
	return io.NewSectionReader(content, 0, f.Size), nil
}

func open(fsys disk.Filesystem, at string) (disk.Sparse, error) {
	inode, err := disk.Lookup(fsys, []byte(at))
	if err != nil {
		return nil, err
	}
	return fsys.Open(inode.Ino)
}

func readSmall(fsys disk.Filesystem, at string, limit int64) ([]byte, error) {
	content, err := open(fsys, at)
	if err != nil {
		return nil, err
	}
	if content.Size() > limit {
		return nil, fmt.Errorf("%s: %w: it has %d bytes", at, ErrInvalid, content.Size())
	}
	text := make([]byte, content.Size())
	if n, err := content.ReadAt(text, 0); n < len(text) && err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return text, nil
}

// Parse reads a definition, and checks it.
func Parse(text []byte) (*Definition, error) {
	if err := checkCounts(text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	d := new(Definition)
	if err := json.Unmarshal(text, d); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if d.Version > Version {
		return nil, fmt.Errorf("%w: its version is %d, and this drydock reads up to %d (use a later drydock)", ErrNewer, d.Version, Version)
	}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return d, nil
}
