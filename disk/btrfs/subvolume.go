package btrfs

import (
	"bytes"
	"errors"
	"strings"

	"github.com/drydock-vm/drydock/disk"
)

const (
	// maxPath bounds the path of a subvolume, in bytes, and so the hops on the
	// way up: four times what Linux takes in one call.
	maxPath = 16 << 10

	// maxPaths bounds the paths of all subvolumes together.
	maxPaths = 16 << 20

	// maxHops bounds the directories and subvolumes on the ways up from all of
	// them: 32 each, if there are as many as there can be.
	maxHops = 32 * (maxSubvolumeID + 1)
)

// Subvolumes implements [disk.SubvolumeLister]. Those that cannot be read, or
// whose place cannot be found, are left out; the error of the first of them is
// returned together with the others.
func (fs *Filesystem) Subvolumes() ([]disk.Subvolume, error) {
	p := &placer{fs: fs, paths: make(map[uint64]string)}
	first := fs.chosenErr
	var list []disk.Subvolume
	err := fs.eachRoot(func(id uint64) error {
		s, err := p.describe(id)
		switch {
		case errors.Is(err, errTooMany):
			return layer.Beyond("subvolumes", offsetOf(fs.sb.root.block), "their paths take more than %d bytes or %d steps", maxPaths, maxHops)
		case errors.Is(err, disk.ErrNotExist):
			return nil // deleted, but not yet gone
		case err != nil:
			if first == nil {
				first = err
			}
			return nil
		}
		list = append(list, s)
		return nil
	})
	if err != nil {
		first = err
	}
	return list, first
}

// eachRoot calls yield for the ID of each subvolume, in ascending order.
func (fs *Filesystem) eachRoot(yield func(id uint64) error) error {
	last := uint64(0)
	var w walk
	err := fs.roots.seek(&w, key{fsTree, kindRoot, 0})
	for ; err == nil && w.valid(); err = w.next() {
		k := w.key()
		if k.kind != kindRoot || !isSubvolume(k.object) || k.object == last {
			continue
		}
		last = k.object
		if err := yield(k.object); err != nil {
			return err
		}
	}
	return err
}

// placer finds out where subvolumes lie. It keeps the paths of those it knows.
type placer struct {
	fs    *Filesystem
	paths map[uint64]string
	total int // bytes
	hops  int
}

var errTooMany = errors.New("too many paths")

func (p *placer) describe(id uint64) (disk.Subvolume, error) {
	s, err := p.fs.subvolume(id)
	if err != nil {
		return disk.Subvolume{}, err
	}
	out := disk.Subvolume{
		ID: id, Root: makeIno(id, subvolumeRoot), ReadOnly: s.item.flags&rootReadOnly != 0,
		UUID: s.item.uuid, Origin: s.item.origin, Received: s.item.received, Default: id == p.fs.chosen,
		Made: s.item.made, Changed: s.item.changed,
	}
	path, err := p.path(id, 0)
	if err != nil {
		return disk.Subvolume{}, err
	}
	out.Path = []byte(path)
	if id != fsTree {
		out.Parent, _, err = p.fs.parent(id)
	}
	return out, err
}

// path returns where a subvolume lies below the top level. Each step up adds at
// least two bytes.
func (p *placer) path(id uint64, below int) (string, error) {
	if path, ok := p.paths[id]; ok || id == fsTree {
		return path, nil
	}
	name := subvolumeName(id)
	if p.hops++; p.hops > maxHops {
		return "", errTooMany
	}
	if below > maxPath {
		return "", layer.Beyond(name, offsetOf(p.fs.sb.root.block), "its path has more than %d bytes", maxPath)
	}
	parent, ref, err := p.fs.parent(id)
	if err != nil {
		return "", err
	}
	inParent, err := p.directoryPath(parent, ref.dir, below+2)
	if err != nil {
		return "", err
	}
	above, err := p.path(parent, below+2+len(inParent)+len(ref.name))
	if err != nil {
		return "", err
	}
	path := strings.TrimPrefix(strings.Join([]string{above, inParent}, "/"), "/")
	path = strings.TrimPrefix(strings.TrimSuffix(path, "/")+"/"+string(ref.name), "/")
	if p.total += len(path); p.total > maxPaths {
		return "", errTooMany
	}
	p.paths[id] = path
	return path, nil
}

// parent returns the subvolume that another lies in, and where.
func (fs *Filesystem) parent(id uint64) (uint64, rootRef, error) {
	name := subvolumeName(id)
	var w walk
	if err := fs.roots.seek(&w, key{id, kindRootBackref, 0}); err != nil {
		return 0, rootRef{}, err
	}
	if !w.valid() || !w.key().is(id, kindRootBackref) {
		return 0, rootRef{}, layer.Damaged(name, w.at(), "nothing says where it lies")
	}
	ref, ok := parseRootRef(w.value().raw)
	if !ok || !isSubvolume(w.key().offset) || !validName(ref.name) {
		return 0, rootRef{}, layer.Damaged(name, w.at(), "its place is %q in inode %d of tree %d", ref.name, ref.dir, w.key().offset)
	}
	return w.key().offset, ref, nil
}

// directoryPath returns the path of a directory in its subvolume.
func (p *placer) directoryPath(id, dir uint64, below int) (string, error) {
	s, err := p.fs.subvolume(id)
	if err != nil {
		return "", err
	}
	var names []string
	for dir != subvolumeRoot {
		if p.hops++; p.hops > maxHops {
			return "", errTooMany
		}
		above, ref, err := s.firstRef(dir)
		if err != nil {
			return "", err
		}
		if below += len(ref.name) + 1; below > maxPath {
			return "", layer.Beyond(inodeName(id, dir), offsetOf(s.root.block), "its path has more than %d bytes", maxPath)
		}
		names = append(names, string(ref.name))
		dir = above
	}
	var b strings.Builder
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteString(names[i])
		b.WriteByte('/')
	}
	return strings.TrimSuffix(b.String(), "/"), nil
}

// firstRef returns the first name of an inode, and the directory that it is in.
func (s *subvolume) firstRef(object uint64) (dir uint64, ref inodeRef, err error) {
	found := false
	err = s.items(object, kindInodeRef, 0, func(offset uint64, v value) error {
		var ok bool
		if ref, _, ok = parseInodeRef(v.raw); !ok || !validName(ref.name) {
			return layer.Damaged(inodeName(s.id, object), v.at, "a reference of %d bytes", len(v.raw))
		}
		dir, found = offset, true
		return errEnough
	})
	if err != nil && !errors.Is(err, errEnough) {
		return 0, inodeRef{}, err
	}
	if !found {
		return 0, inodeRef{}, layer.Damaged(inodeName(s.id, object), offsetOf(s.root.block), "nothing says where this directory lies")
	}
	return dir, ref, nil
}

// validName reports whether name can be that of a file.
func validName(name []byte) bool {
	return len(name) > 0 && len(name) <= maxNameLen && bytes.IndexByte(name, '/') < 0 && bytes.IndexByte(name, 0) < 0 &&
		string(name) != "." && string(name) != ".."
}

// inodeRef is a name of an inode and its place in the directory.
//
// Layout of struct btrfs_inode_ref, little endian, several in an item whose key is
// (inode, INODE_REF, directory):
//
//	0x0 8 index   0x8 2 name_len   0xA name
//
// Of struct btrfs_inode_extref, whose key is (inode, INODE_EXTREF, hash):
//
//	0x0 8 parent_objectid   0x8 8 index   0x10 2 name_len   0x12 name
type inodeRef struct {
	dir, index uint64
	name       []byte
}

// parseInodeRef takes the first reference in raw, but for its directory, and
// returns what follows it.
func parseInodeRef(raw []byte) (ref inodeRef, rest []byte, ok bool) {
	c := newCursor(raw)
	ref.index = c.U64()
	ref.name = c.Bytes(int(c.U16()))
	if c.Err() != nil {
		return inodeRef{}, nil, false
	}
	return ref, raw[c.Offset():], true
}

// defaultSubvolume returns the ID of the one that the entry "default" of the tree
// of roots names.
func (fs *Filesystem) defaultSubvolume() (uint64, error) {
	v, err := fs.roots.get(key{rootTreeDir, kindDirItem, uint64(nameHash([]byte("default")))})
	if err != nil {
		return 0, err
	}
	for raw := v.raw; len(raw) > 0; {
		item, rest, ok := parseDirItem(raw)
		if !ok {
			return 0, layer.Damaged("default subvolume", v.at, "its entry is cut short")
		}
		if string(item.name) == "default" {
			if item.location.kind != kindRoot || !isSubvolume(item.location.object) {
				return 0, layer.Damaged("default subvolume", v.at, "it is %v", item.location)
			}
			return item.location.object, nil
		}
		raw = rest
	}
	return fsTree, nil // as Linux does
}

// findSubvolume returns the ID of the one at a path below the top level.
func (fs *Filesystem) findSubvolume(path string) (uint64, error) {
	list, err := fs.Subvolumes()
	for _, s := range list {
		if string(s.Path) == strings.Trim(path, "/") {
			return s.ID, nil
		}
	}
	if err != nil {
		return 0, err
	}
	return 0, layer.Absent("subvolume", "there is none at %q", path)
}
