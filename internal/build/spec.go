package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
)

// SpecAlign is what the size of a spec disk is a multiple of, in bytes.
const SpecAlign = 1 << 20

// specHeader is the name of the first entry of the tar.
const specHeader = "drydock-build.json"

// Limits of a spec disk. The host writes it, so they find mistakes (a
// Containerfile beside a disk image) rather than attacks.
const (
	maxSpecHeader  = 1 << 20   // bytes
	maxSpecEntries = 100_000   // files, folders and symlinks
	maxSpecBytes   = 512 << 20 // bytes of files
	maxSpecPath    = 4096      // bytes of one path, as in Linux
)

// containerfiles are the names under which an image's folder may hold its
// build instructions, best first.
var containerfiles = []string{"Containerfile", "Dockerfile"}

// Spec is what to build: the header of a spec disk.
type Spec struct {
	Version int         `json:"version"`  // FormatVersion
	BuildID string      `json:"build_id"` // a new one asks for a new build
	Images  []SpecImage `json:"images"`   // sorted by name
	// SpecDigest tells folders apart: it changes with any name, mode or
	// content, and with no time or owner.
	SpecDigest string `json:"spec_digest"`
}

// SpecImage is one image to build: a folder of the spec.
type SpecImage struct {
	Name          string `json:"name"`
	Containerfile string `json:"containerfile"` // its name in the folder
	Digest        string `json:"digest"`        // of the folder
}

func (s Spec) validate() error {
	switch {
	case s.Version != FormatVersion:
		return specError("version", "%d, and this drydock knows %d", s.Version, FormatVersion)
	case !namePattern.MatchString(s.BuildID):
		return specError("build_id", "%q is not a name", s.BuildID)
	case len(s.Images) == 0 || len(s.Images) > maxImages:
		return specError("images", "%d of them, not 1 to %d", len(s.Images), maxImages)
	}
	for i, image := range s.Images {
		switch {
		case !namePattern.MatchString(image.Name):
			return specError("images", "%q is not a name", image.Name)
		case i > 0 && s.Images[i-1].Name >= image.Name:
			return specError("images", "%s is there twice or not in its order", image.Name)
		case image.Containerfile != containerfiles[0] && image.Containerfile != containerfiles[1]:
			return specError(image.Name+": containerfile", "%q is not %s", image.Containerfile, containerfiles[0])
		case !digestPattern.MatchString(image.Digest):
			return specError(image.Name+": digest", "%q is not a digest", image.Digest)
		}
	}
	if digest := specDigest(s.Images); s.SpecDigest != digest {
		return specError("spec_digest", "%q is not %s", s.SpecDigest, digest)
	}
	return nil
}

func (s Spec) marshal() ([]byte, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the spec: %w", err)
	}
	return append(data, '\n'), nil
}

// SpecDigest returns the digest of a spec folder, as "sha256:…": that which a
// spec disk made from it would carry.
func SpecDigest(folder string) (string, error) {
	spec, _, err := readFolder(folder)
	return spec.SpecDigest, err
}

// specEntry is one file, folder or symlink of a spec.
type specEntry struct {
	path   string // "IMAGE/…", with slashes
	mode   fs.FileMode
	size   int64  // of a file, bytes
	target string // of a symlink
}

// readFolder finds what a spec folder holds: the images and, for each, its
// entries sorted by path. Files beside the images' folders are no part of it.
func readFolder(folder string) (Spec, map[string][]specEntry, error) {
	spec := Spec{Version: FormatVersion}
	all, err := os.ReadDir(folder)
	if err != nil {
		return spec, nil, fmt.Errorf("read the spec folder: %w", err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return spec, nil, fmt.Errorf("read the spec folder: %w", err)
	}
	defer root.Close()
	entries := make(map[string][]specEntry)
	limits := new(specLimits)
	for _, item := range all {
		name := item.Name()
		if !item.IsDir() || name[0] == '.' {
			continue
		}
		if !namePattern.MatchString(name) {
			return spec, nil, specError(name, "not a name for an image (lower-case letters, digits and . _ - only)")
		}
		image := SpecImage{Name: name, Containerfile: findContainerfile(filepath.Join(folder, name))}
		if image.Containerfile == "" {
			return spec, nil, specError(name, "there is no %s in the folder", containerfiles[0])
		}
		if entries[name], err = walkImage(root, name, limits); err != nil {
			return spec, nil, err
		}
		if image.Digest, err = digestImage(root, entries[name]); err != nil {
			return spec, nil, err
		}
		spec.Images = append(spec.Images, image)
	}
	if len(spec.Images) == 0 {
		return spec, nil, specError(folder, "there is no IMAGE/%s in the folder", containerfiles[0])
	}
	spec.SpecDigest = specDigest(spec.Images)
	return spec, entries, nil
}

func findContainerfile(folder string) string {
	for _, name := range containerfiles {
		if info, err := os.Lstat(filepath.Join(folder, name)); err == nil && info.Mode().IsRegular() {
			return name
		}
	}
	return ""
}

// walkImage lists one image's folder, the folder itself first.
func walkImage(root *os.Root, name string, limits *specLimits) ([]specEntry, error) {
	var entries []specEntry
	err := fs.WalkDir(root.FS(), name, func(path string, item fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := item.Info()
		if err != nil {
			return err
		}
		entry := specEntry{path: path, mode: canonicalMode(info.Mode())}
		switch info.Mode().Type() {
		case 0:
			entry.size = info.Size()
		case fs.ModeDir:
		case fs.ModeSymlink:
			if entry.target, err = root.Readlink(path); err != nil {
				return err
			}
		default:
			return specError(path, "neither a file, nor a folder, nor a symlink")
		}
		entries = append(entries, entry)
		return limits.take(entry)
	})
	if err != nil {
		var wrong *FormatError
		if errors.As(err, &wrong) {
			return nil, err
		}
		return nil, fmt.Errorf("read the spec folder: %w", err)
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].path < entries[j].path })
	return entries, nil
}

// canonicalMode leaves of a mode what every checkout of a repository gives
// equally: whether a file may be executed.
func canonicalMode(mode fs.FileMode) fs.FileMode {
	switch mode.Type() {
	case fs.ModeDir:
		return fs.ModeDir | 0o755
	case fs.ModeSymlink:
		return fs.ModeSymlink | 0o777
	}
	if mode&0o100 != 0 {
		return 0o755
	}
	return 0o644
}

// specLimits counts what a spec holds, while it is written or read.
type specLimits struct {
	entries int
	bytes   int64
}

// take accounts for one more entry, and checks it.
func (l *specLimits) take(e specEntry) error {
	switch {
	case e.size < 0 || e.size > maxSpecBytes-l.bytes:
		return specError(e.path, "the files of the spec are over %d MiB in all", maxSpecBytes>>20)
	case l.entries == maxSpecEntries:
		return specError(e.path, "the spec has over %d files", maxSpecEntries)
	case len(e.path) > maxSpecPath || len(e.target) > maxSpecPath:
		return specError(e.path, "the path is over %d bytes", maxSpecPath)
	case e.mode.Type() == fs.ModeSymlink && (path.IsAbs(e.target) || !filepath.IsLocal(path.Join(path.Dir(e.path), e.target))):
		return specError(e.path, "the symlink leads out of the spec, to %q", e.target)
	}
	l.entries++
	l.bytes += e.size
	return nil
}

func specError(field, format string, arguments ...any) error {
	return &FormatError{What: "spec", Field: field, Reason: fmt.Sprintf(format, arguments...)}
}
