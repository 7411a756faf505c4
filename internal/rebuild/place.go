package rebuild

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// place is where something comes: below a folder that the user named.
type place struct {
	base string
	rel  string // clean, relative to base
}

func (l place) path() string { return filepath.Join(l.base, l.rel) }

// place returns where a path of the backup comes, or why it must not.
func (o *Options) place(path string) (place, error) {
	if o.To != "" {
		return place{o.To, path[1:]}, nil
	}
	best := ""
	for _, folder := range o.Allow {
		if within(folder, path) && len(folder) > len(best) {
			best = folder
		}
	}
	if best == "" {
		return place{}, fmt.Errorf("the backup says where it comes, and you have not allowed that folder (--allow %s, or --to another FOLDER)", filepath.Dir(path))
	}
	return place{best, strings.TrimPrefix(strings.TrimPrefix(path, best), "/")}, nil
}

// within reports whether path lies in folder, both absolute and clean.
func within(folder, path string) bool {
	return folder == "/" || strings.HasPrefix(path, folder+"/")
}

// folder makes the folder that the place lies in, and returns its path without
// symlinks: for programs that open files by their paths. One that leads out of base is
// refused.
func (l place) folder() (string, error) {
	if err := os.MkdirAll(l.base, 0o755); err != nil {
		return "", err
	}
	root, err := os.OpenRoot(l.base)
	if err != nil {
		return "", err
	}
	defer root.Close()
	dir := filepath.Dir(l.rel)
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("%w (a symlink that leads out of %s is not followed)", err, l.base)
	}
	base, err := filepath.EvalSymlinks(l.base)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(filepath.Join(l.base, dir))
	if err != nil {
		return "", err
	}
	if real != base && !within(base, real) {
		return "", fmt.Errorf("%s leads to %s, and a symlink that leads out of %s is not followed", filepath.Join(l.base, dir), real, l.base)
	}
	return real, nil
}
