package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/drydock-vm/drydock/internal/atomicfile"
)

// maxEarlier is how many earlier currents a state keeps: more rollbacks in a
// row than a person will do.
const maxEarlier = 100

// Promote makes a version the current one. A bad one cannot be: [ErrBad].
func (s *Store) Promote(name, id string) error {
	v, err := s.Get(name, id)
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	return s.change(name, func(st *state) error {
		if bad, ok := st.Bad[id]; ok {
			return fmt.Errorf("promote %s: %w: %s", v, ErrBad, bad.Reason)
		}
		if st.Current == id {
			return nil
		}
		if st.Current != "" {
			st.Earlier = append(st.Earlier, st.Current)
		}
		st.Earlier = slices.DeleteFunc(st.Earlier, func(e string) bool { return e == id })
		if drop := len(st.Earlier) - maxEarlier; drop > 0 {
			st.Earlier = st.Earlier[drop:]
		}
		st.Current = id
		return nil
	})
}

// MarkBad keeps a version from all disks. Where it is the current one, the one
// before it becomes current again, if there is one that is not bad.
func (s *Store) MarkBad(name, id, reason string) error {
	if _, err := s.Get(name, id); err != nil {
		return fmt.Errorf("mark bad: %w", err)
	}
	return s.change(name, func(st *state) error {
		if st.Bad == nil {
			st.Bad = map[string]badly{}
		}
		if _, ok := st.Bad[id]; !ok {
			st.Bad[id] = badly{Reason: reason, Time: s.now().UTC()}
		}
		if st.Current == id {
			st.Current = s.takeEarlier(name, st)
		}
		return nil
	})
}

// UnmarkBad takes [Store.MarkBad] back. The version does not become current.
func (s *Store) UnmarkBad(name, id string) error {
	if _, err := s.Get(name, id); err != nil {
		return fmt.Errorf("unmark bad: %w", err)
	}
	return s.change(name, func(st *state) error {
		delete(st.Bad, id)
		return nil
	})
}

// Rollback makes the last version current that was current before and is not
// bad, and returns it. Without one the error is [ErrNoVersion].
func (s *Store) Rollback(name string) (Version, error) {
	err := s.change(name, func(st *state) error {
		id := s.takeEarlier(name, st)
		if id == "" {
			return fmt.Errorf("roll back %s: no earlier version that is not bad: %w", name, ErrNoVersion)
		}
		st.Current = id
		return nil
	})
	if err != nil {
		return Version{}, err
	}
	return s.Current(name)
}

// takeEarlier takes the last earlier current that is good and still there off
// the list, and returns it, or "".
func (s *Store) takeEarlier(name string, st *state) string {
	for len(st.Earlier) > 0 {
		id := st.Earlier[len(st.Earlier)-1]
		st.Earlier = st.Earlier[:len(st.Earlier)-1]
		if _, bad := st.Bad[id]; bad {
			continue
		}
		if _, err := os.Stat(filepath.Join(s.dir, name, id, versionFile)); err == nil {
			return id
		}
	}
	return ""
}

// Remove deletes a version that is not in use: [ErrInUse] otherwise.
func (s *Store) Remove(name, id string) error {
	v, err := s.Get(name, id)
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return s.locked(func() error {
		used, err := s.used(name)
		if err != nil {
			return err
		}
		if why, ok := used[id]; ok {
			return fmt.Errorf("remove %s: %w: %s", v, ErrInUse, why)
		}
		return s.remove(v)
	})
}

// Prune removes old versions and returns them. It keeps the newest keep ones,
// the current one, the one to roll back to, those that a disk was made from, and
// those that were made bad, as long as they are among the newest: so that the
// same build does not come in again.
func (s *Store) Prune(name string, keep int) ([]Version, error) {
	if err := ValidName(name); err != nil {
		return nil, err
	}
	var removed []Version
	err := s.locked(func() error {
		if err := s.cleanImports(name); err != nil {
			return err
		}
		versions, err := s.List(name)
		if err != nil {
			return err
		}
		used, err := s.used(name)
		if err != nil {
			return err
		}
		for i, v := range versions {
			if _, ok := used[v.ID]; ok || i < max(keep, 1) {
				continue
			}
			if err := s.remove(v); err != nil {
				return err
			}
			removed = append(removed, v)
		}
		return nil
	})
	return removed, err
}

// used returns the versions of an image that must stay, and why.
func (s *Store) used(name string) (map[string]string, error) {
	st, err := s.state(name)
	if err != nil {
		return nil, err
	}
	used := map[string]string{}
	if n := len(st.Earlier); n > 0 {
		used[st.Earlier[n-1]] = "it is the one that a rollback goes to"
	}
	installed, err := s.AllInstalled()
	if err != nil {
		return nil, err
	}
	for _, in := range installed {
		why := fmt.Sprintf("disk %s of VM %s was made from it", in.Disk, in.VM)
		if in.Previous != nil && in.Previous.Image == name {
			used[in.Previous.Version] = why
		}
		if in.Image == name {
			used[in.Version] = why
		}
	}
	pending, err := s.allPrepared()
	if err != nil {
		return nil, err
	}
	for _, p := range pending {
		if p.Image == name {
			used[p.Version] = fmt.Sprintf("it waits beside %s", p.Path)
		}
	}
	if st.Current != "" {
		used[st.Current] = "it is the current version"
	}
	return used, nil
}

// remove deletes a version under another name first, so that no half of it
// ever looks like a version.
func (s *Store) remove(v Version) error {
	dir := filepath.Join(s.dir, v.Image)
	trash, err := os.MkdirTemp(dir, importPrefix)
	if err != nil {
		return fmt.Errorf("remove %s: %w", v, err)
	}
	if err := os.Rename(filepath.Join(dir, v.ID), filepath.Join(trash, v.ID)); err != nil {
		return errors.Join(fmt.Errorf("remove %s: %w", v, err), os.Remove(trash))
	}
	if err := os.RemoveAll(trash); err != nil {
		return fmt.Errorf("remove %s: %w", v, err)
	}
	return atomicfile.SyncDir(dir)
}
