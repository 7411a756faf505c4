//go:build linux

package unit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drydock-vm/drydock/internal/atomicfile"
)

// ForeignError says that a file that drydock would write is somebody else's.
type ForeignError struct{ Path string }

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s is not drydock's (it does not begin with drydock's line: move it away, and try again)", e.Path)
}

// Install writes the files below root, and removes those of an earlier
// installation that are not among them. It returns the paths that it changed.
// If one of the files is there and is not drydock's, it changes nothing: the
// error is a [ForeignError].
func Install(root string, files []File) (changed []string, err error) {
	var write []File
	for _, f := range files {
		same, err := check(root, f)
		if err != nil {
			return nil, err
		}
		if !same {
			write = append(write, f)
		}
	}
	for _, f := range write {
		path := filepath.Join(root, f.Path)
		if err := put(path, f); err != nil {
			return changed, fmt.Errorf("install %s: %w", path, err)
		}
		changed = append(changed, path)
	}
	stale, err := remove(root, func(path string) bool {
		return !slices.ContainsFunc(files, func(f File) bool { return f.Path == path })
	})
	return append(changed, stale...), err
}

// Remove removes below root all that an Install wrote, and the folders that are
// empty then. It returns the paths that it removed.
func Remove(root string) (removed []string, err error) {
	return remove(root, func(string) bool { return true })
}

// check reports whether f is there as it should be.
func check(root string, f File) (same bool, err error) {
	path := filepath.Join(root, f.Path)
	content, ours, err := look(path, f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && !ours {
		err = &ForeignError{path}
	}
	return err == nil && content == f.Content+f.Link, err
}

// look returns what is at path, the content of a file or the target of a link,
// and whether it is drydock's. rel is the path from the root.
func look(path, rel string) (content string, ours bool, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", false, err
	}
	if isLink(rel) {
		if info.Mode().Type() != fs.ModeSymlink {
			return "", false, nil
		}
		content, err = os.Readlink(path)
		// systemctl enable makes them absolute.
		return content, filepath.Base(content) == filepath.Base(rel), err
	}
	if !info.Mode().IsRegular() {
		return "", false, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	bytes, err := io.ReadAll(io.LimitReader(f, maxUnit))
	return string(bytes), strings.HasPrefix(string(bytes), header), err
}

// maxUnit is more than the longest unit file has that drydock writes, in bytes.
const maxUnit = 1 << 20

func isLink(path string) bool { return strings.HasSuffix(filepath.Dir(path), ".wants") }

func put(path string, f File) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if f.Link == "" {
		return atomicfile.Write(path, []byte(f.Content), 0o644)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(f.Link, path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// remove removes those of drydock's files that are unwanted.
func remove(root string, unwanted func(path string) bool) (removed []string, err error) {
	paths, err := candidates(root)
	if err != nil {
		return nil, err
	}
	for _, rel := range paths {
		path := filepath.Join(root, rel)
		_, ours, err := look(path, rel)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return removed, err
		}
		if !ours || !unwanted(rel) {
			continue
		}
		if err := os.Remove(path); err != nil {
			return removed, err
		}
		removed = append(removed, path)
		removeEmpty(filepath.Dir(path))
	}
	return removed, nil
}

// removeEmpty removes a drop-in's folder that has nothing in it any more. Others
// may be systemd's own.
func removeEmpty(folder string) {
	if name := filepath.Base(folder); strings.HasSuffix(name, ".d") || strings.HasSuffix(name, ".wants") {
		_ = os.Remove(folder) // fails when something is in it
	}
}

// candidates are the paths at which drydock may have written something, among
// them the drop-ins of units that the configuration no longer names.
func candidates(root string) ([]string, error) {
	paths := []string{
		filepath.Join(dir, "multi-user.target.wants", Recover),
		filepath.Join(dir, "timers.target.wants", Timer), filepath.Join(dir, "timers.target.wants", CheckTimer),
		filepath.Join(dir, Recover), filepath.Join(dir, Service), filepath.Join(dir, Timer),
		filepath.Join(dir, Check), filepath.Join(dir, CheckTimer),
	}
	entries, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".service.d") {
			paths = append(paths, filepath.Join(dir, e.Name(), dropIn))
		}
	}
	return paths, nil
}
