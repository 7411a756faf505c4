package guest

import (
	"errors"
	"fmt"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/layout"
)

// maxCandidates is how many subvolumes of one filesystem are looked at in search
// of the root: snapshots come behind.
const maxCandidates = 64

// The reasons to take a tree for the guest's root, the best last.
const (
	rootNot    = iota
	rootSystem // it has an os-release or an init
	rootFstab  // it has an fstab
	rootNamed  // its fstab names itself as the root
)

// candidate is a tree that may be the guest's root.
type candidate struct {
	volume    int
	fs        disk.Filesystem
	root      uint64
	subvolume uint64 // ID, of btrfs
	score     int
	entries   []entry
	remarks   []string
}

// findRoot returns the root: the one in the volume that is named, or the best of
// all.
func (c *composer) findRoot(name string) (*candidate, error) {
	if name != "" {
		i, err := c.layout.Find(name)
		if err != nil {
			return nil, err
		}
		return c.bestIn(i)
	}
	var best, second *candidate
	for i := range c.volumes {
		if !c.volumes[i].Readable {
			continue
		}
		found, err := c.bestIn(i)
		switch {
		case err != nil || found.score == rootNot: // an error is a remark of the volume
		case best == nil || found.score > best.score:
			best, second = found, nil
		case found.score == best.score && second == nil:
			second = found
		}
	}
	if best == nil {
		return nil, c.noRoot()
	}
	if second != nil {
		return nil, layer.Unsupported("root filesystem", nowhere, "name the volume with the root",
			"volumes %q and %q both look like it", c.volumes[best.volume].Name, c.volumes[second.volume].Name)
	}
	return best, nil
}

// noRoot says what there is instead of a root.
func (c *composer) noRoot() error {
	for i := range c.volumes {
		if v := &c.volumes[i]; v.Err != nil {
			return fmt.Errorf("no volume has /etc/fstab, /etc/os-release or /sbin/init, but %q cannot be read: %w", v.Name, v.Err)
		}
	}
	return layer.Absent("root filesystem", "of %d volumes none has /etc/fstab, /etc/os-release or /sbin/init", len(c.volumes))
}

// bestIn returns the best candidate in a volume.
func (c *composer) bestIn(i int) (*candidate, error) {
	fs, err := c.layout.Open(i)
	if err != nil {
		return nil, err
	}
	best := &candidate{volume: i, fs: fs}
	subvolumes := c.subvolumesOf(i, fs)
	best.root, best.subvolume, _ = subvolumes.choose(&entry{}) // the default is always there
	c.rate(best)
	for n, s := range subvolumes.list {
		if n == maxCandidates || best.score == rootNamed {
			break
		}
		other := &candidate{volume: i, fs: fs, root: s.Root, subvolume: s.ID}
		if c.rate(other); other.score > best.score {
			best = other
		}
	}
	return best, nil
}

// rate looks into a candidate, and reads its fstab.
func (c *composer) rate(at *candidate) {
	w := newWalker(&Filesystem{mounts: []mount{{fs: at.fs, root: at.root}}}, &c.searched)
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release", "/sbin/init"} {
		if _, err := w.walk(path); err == nil {
			at.score = rootSystem
		}
	}
	file, err := w.walk("/etc/fstab")
	if errors.Is(err, disk.ErrNotExist) {
		at.remarks = append(at.remarks, "there is no /etc/fstab: the root alone is shown")
		return
	}
	var text []byte
	if err == nil {
		at.score = rootFstab
		text, err = w.read(file.place)
	}
	if err != nil {
		at.remarks = append(at.remarks, fmt.Sprintf("/etc/fstab cannot be read, and the root alone is shown: %v", err))
		return
	}
	var bad int
	if at.entries, bad = parseFstab(text); bad > 0 {
		at.remarks = append(at.remarks, fmt.Sprintf("%d lines of /etc/fstab are not used: they are not entries, or are more than %d", bad, maxEntries))
	}
	for i := range at.entries {
		if e := &at.entries[i]; e.target == "/" && c.isRoot(at, e) {
			at.score = rootNamed
		}
	}
}

// isRoot reports whether an entry for "/" is about the candidate itself.
func (c *composer) isRoot(at *candidate, e *entry) bool {
	volume, _, err := c.resolve(e.source)
	if err != nil || volume != at.volume {
		return false
	}
	root, _, err := c.subvolumesOf(at.volume, at.fs).choose(e)
	return err == nil && root == at.root
}

// read returns the content of a file that is not large.
func (w *walker) read(at place) ([]byte, error) {
	f, err := w.fs.mounts[at.mount].fs.Open(at.ino)
	if err != nil {
		return nil, err
	}
	if f.Size() > maxFstab {
		return nil, layer.Beyond("file", nowhere, "it has %d bytes, at most %d are read", f.Size(), maxFstab)
	}
	text := make([]byte, f.Size()) // at most maxFstab
	if n, err := f.ReadAt(text, 0); n < len(text) {
		return nil, err
	}
	return text, nil
}

// known is what a remark calls a volume.
func known(v *layout.Volume) string { return fmt.Sprintf("volume %q (%s)", v.Name, v.Content) }
