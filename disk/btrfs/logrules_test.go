package btrfs

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/disk/internal/disktest"
)

// logForgery is an image whose log a test writes.
type logForgery struct {
	*forgery // as it was committed, without the log
	logs     pointer
	log      pointer
}

// logItem is an item of a log.
type logItem struct {
	key key
	raw []byte
}

func forgeLog(t *testing.T) *logForgery {
	t.Helper()
	whole := forge(t, seedBytes(t, "log"))
	l := &logForgery{logs: whole.fs.sb.logRoot, log: whole.tree(treeLog).root}
	whole.superblock(func(p []byte) { put64(p[0x60:], 0) })
	l.forgery = forge(t, whole.raw)
	return l
}

// write makes a log of some items, which fit into one leaf, and opens the image.
func (l *logForgery) write(items []logItem) (*Filesystem, error) {
	slices.SortFunc(items, func(a, b logItem) int { return a.key.compare(b.key) })
	block := l.block(l.log.block)
	put32(block[0x60:], uint32(len(items)))
	block[0x64] = 0
	end := len(block) - nodeHeaderSize
	for i, it := range items {
		end -= len(it.raw)
		copy(block[nodeHeaderSize+end:], it.raw)
		e := node(block).entry(i)
		put64(e, it.key.object)
		e[8] = it.key.kind
		put64(e[9:], it.key.offset)
		put32(e[keySize:], uint32(end))
		put32(e[keySize+4:], uint32(len(it.raw)))
	}
	seal(l.fs, block)
	roots := l.block(l.logs.block)
	node(roots).value(node(roots).search(key{treeLog, kindRoot, fsTree})).raw[0xee] = 0
	seal(l.fs, roots)
	l.superblock(func(p []byte) {
		put64(p[0x60:], l.logs.block)
		p[0xc8] = l.logs.level
	})
	return Open([]disk.Sparse{disktest.Mem(l.raw)}, Options{})
}

// inode is the item of an inode, which has one name.
func (l *logForgery) inode(object uint64, mode uint32) logItem {
	raw := make([]byte, inodeItemSize)
	put64(raw, l.fs.sb.generation)
	put32(raw[linksOffset:], 1)
	put32(raw[modeOffset:], mode)
	return logItem{key{object, kindInode, 0}, raw}
}

// span says that the log has all entries of a directory with an index from first to last.
func (l *logForgery) span(dir string, first, last uint64) logItem {
	return logItem{key{l.object(dir), kindDirLogIndex, first}, binary.LittleEndian.AppendUint64(nil, last)}
}

// entry is a name in a directory.
func (l *logForgery) entry(dir string, index uint64, name string, target key, kind uint8) logItem {
	return logItem{key{l.object(dir), kindDirIndex, index}, appendDirItem(nil, dirItem{location: target, kind: kind, name: []byte(name)})}
}

// ref is the reference of an inode for a name.
func (l *logForgery) ref(object uint64, dir string, index uint64, name string) logItem {
	return logItem{key{object, kindInodeRef, l.object(dir)}, appendRef(nil, kindInodeRef, inodeRef{index: index, name: []byte(name)})}
}

// index is where a directory has a name.
func (l *logForgery) index(dir, name string) (index uint64) {
	l.t.Helper()
	s, err := l.fs.subvolume(fsTree)
	if err == nil {
		err = s.items(l.object(dir), kindDirIndex, 0, func(at uint64, v value) error {
			if item, _, _ := parseDirItem(v.raw); string(item.name) == name {
				index = at
			}
			return nil
		})
	}
	if err != nil || index == 0 {
		l.t.Fatalf("%s in %s: %v", name, dir, err)
	}
	return index
}

func inodeKey(object uint64) key { return key{object, kindInode, 0} }

const (
	newObject = 5000
	typeFile  = 1
	typeDir   = 2
)

// names lists a directory: each name, with the number of links where it is not 1, and
// with the name that its inode had before where that was another one.
func (l *logForgery) names(fs *Filesystem, dir string) string {
	l.t.Helper()
	old := map[uint64]string{makeIno(fsTree, newObject): "new"}
	for _, path := range []string{"a/b", "a/gone", "a/medium", "a/small", "symlink"} {
		n, err := disk.Lookup(l.fs, []byte(path))
		if err != nil {
			l.t.Fatal(err)
		}
		old[n.Ino] = path[strings.LastIndexByte(path, '/')+1:]
	}
	n, err := disk.Lookup(fs, []byte(dir))
	if err != nil {
		return "-"
	}
	var list []string
	size := 0
	err = fs.ReadDir(n.Ino, func(e disk.DirEntry) error {
		size += 2 * len(e.Name)
		target, err := fs.Inode(e.Ino)
		if err != nil {
			return err
		}
		line := string(e.Name)
		if e.Type != target.Type() {
			line += "!"
		}
		if was := old[e.Ino]; was != line {
			line += "=" + was
		}
		if target.Links != 1 {
			line += fmt.Sprint("*", target.Links)
		}
		list = append(list, line)
		return nil
	})
	if err != nil {
		l.t.Error(err)
	}
	if int64(size) != n.Size {
		l.t.Errorf("directory %s has a size of %d, its names make %d", dir, n.Size, size)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// TestLogRules replays logs of few items into the directory "a", which has "b", another
// directory, and the files "gone", "medium" and "small". The rules are those of Linux
// (fs/btrfs/tree-log.c).
func TestLogRules(t *testing.T) {
	const all = maxOffset
	for _, c := range []struct {
		name string
		log  func(l *logForgery, dir logItem) []logItem // dir is the inode of "a"
		want string                                     // of "a"; or, with "!", what is wrong
	}{
		{"nothing", func(_ *logForgery, dir logItem) []logItem { return []logItem{dir} }, "b gone medium small"},

		// What the log has all of, and is not in it, is gone.
		{"all of no entries", func(l *logForgery, dir logItem) []logItem {
			return []logItem{dir, l.span("a", 0, all)}
		}, ""},
		{"all from an index on", func(l *logForgery, dir logItem) []logItem {
			return []logItem{dir, l.span("a", l.index("a", "gone"), all)}
		}, "b small"},
		{"all up to an index", func(l *logForgery, dir logItem) []logItem {
			return []logItem{dir, l.span("a", 0, l.index("a", "small"))}
		}, "gone medium"},
		{"one index", func(l *logForgery, dir logItem) []logItem {
			at := l.index("a", "gone")
			return []logItem{dir, l.span("a", at, at)}
		}, "b medium small"},
		{"ranges that overlap", func(l *logForgery, dir logItem) []logItem {
			at := l.index("a", "small")
			return []logItem{dir, l.span("a", at, at+1), l.span("a", at+1, at+1)}
		}, "b medium"},
		{"a range that ends before it starts", func(l *logForgery, dir logItem) []logItem {
			at := l.index("a", "small")
			return []logItem{dir, l.span("a", at, at-1)}
		}, "b gone medium small"},
		{"an entry that is there still", func(l *logForgery, dir logItem) []logItem {
			return []logItem{dir, l.span("a", 0, all), l.entry("a", l.index("a", "small"), "small", inodeKey(l.object("a/small")), typeFile)}
		}, "small"},
		{"another name at the same index", func(l *logForgery, dir logItem) []logItem {
			return []logItem{dir, l.span("a", 0, all), l.entry("a", l.index("a", "small"), "large", inodeKey(l.object("symlink")), 7)}
		}, "large=symlink*2"},
		{"a range of 7 bytes", func(l *logForgery, dir logItem) []logItem {
			r := l.span("a", 0, all)
			r.raw = r.raw[:7]
			return []logItem{dir, r}
		}, "!a range of entries in 7 bytes"},

		// An entry takes the name and the place of another, if what it names is there.
		{"a name for another file", func(l *logForgery, dir logItem) []logItem {
			return []logItem{dir, l.entry("a", l.index("a", "small"), "small", inodeKey(l.object("symlink")), 7)}
		}, "b gone medium small=symlink*2"},
		{"a name for another file of the directory", func(l *logForgery, dir logItem) []logItem {
			return []logItem{dir, l.entry("a", l.index("a", "small"), "small", inodeKey(l.object("a/medium")), typeFile)}
		}, "b gone medium*2 small=medium*2"},
		{"a name at another place", func(l *logForgery, dir logItem) []logItem {
			return []logItem{dir, l.entry("a", 99, "small", inodeKey(l.object("a/medium")), typeFile)}
		}, "b gone medium*2 small=medium*2"},
		{"a name for what is not there", func(l *logForgery, dir logItem) []logItem {
			return []logItem{dir, l.entry("a", l.index("a", "small"), "small", inodeKey(newObject), typeFile)}
		}, "b gone medium small"},
		{"a name for a subvolume", func(l *logForgery, dir logItem) []logItem {
			return []logItem{dir, l.entry("a", l.index("a", "small"), "small", key{256, kindRoot, all}, typeDir)}
		}, "b gone medium small"},
		{"the same name for the same file", func(l *logForgery, dir logItem) []logItem {
			return []logItem{dir, l.entry("a", l.index("a", "small"), "small", inodeKey(l.object("a/small")), typeFile)}
		}, "b gone medium small"},
		{"the same name as another type", func(l *logForgery, dir logItem) []logItem {
			return []logItem{dir, l.entry("a", l.index("a", "small"), "small", inodeKey(l.object("a/small")), 5)}
		}, "b gone medium small"},
		{"the right type of a file", func(l *logForgery, dir logItem) []logItem {
			at := l.index("a", "small")
			l.leaf(fsTree, key{l.object("a"), kindDirIndex, at}, func(_, item []byte) { item[0x1d] = 5 })
			return []logItem{dir, l.entry("a", at, "small", inodeKey(l.object("a/small")), typeFile)}
		}, "b gone medium small"},
		{"a new name at a place that is taken", func(l *logForgery, dir logItem) []logItem {
			return []logItem{dir, l.entry("a", l.index("a", "small"), "other", inodeKey(l.object("a/medium")), typeFile)}
		}, "b gone medium small"},
		{"a name that comes with its reference", func(l *logForgery, dir logItem) []logItem {
			small := l.object("a/small")
			return []logItem{dir, l.entry("a", 99, "other", inodeKey(small), typeFile), l.inode(small, 0o100644), l.ref(small, "a", 99, "other")}
		}, "b gone medium other=small"},
		{"a name with a slash", func(l *logForgery, dir logItem) []logItem {
			return []logItem{dir, l.entry("a", 99, "o/r", inodeKey(l.object("a/small")), typeFile)}
		}, "!an entry of"},
		{"two names in one entry", func(l *logForgery, dir logItem) []logItem {
			e := l.entry("a", 99, "other", inodeKey(l.object("a/small")), typeFile)
			e.raw = append(e.raw, e.raw...)
			return []logItem{dir, e}
		}, "!an entry of"},
		{"an entry of a directory that is not there", func(l *logForgery, _ logItem) []logItem {
			e := l.entry("a", 99, "other", inodeKey(l.object("a/small")), typeFile)
			e.key.object = newObject
			return []logItem{e}
		}, "!log of inode 5000 of subvolume 5 at offset 0x538000: damaged: it has entries, but is not there"},

		// With its references a file has those names, and no others in that directory.
		{"a new file", func(l *logForgery, _ logItem) []logItem {
			return []logItem{l.inode(newObject, 0o100644), l.ref(newObject, "a", 99, "new")}
		}, "b gone medium new small"},
		{"a new file in the place of another", func(l *logForgery, _ logItem) []logItem {
			return []logItem{l.inode(newObject, 0o100644), l.ref(newObject, "a", l.index("a", "small"), "small")}
		}, "b gone medium small=new"},
		{"a new file of the name of another", func(l *logForgery, _ logItem) []logItem {
			return []logItem{l.inode(newObject, 0o100644), l.ref(newObject, "a", 99, "small")}
		}, "b gone medium small=new"},
		{"a new file of the name of a directory", func(l *logForgery, _ logItem) []logItem {
			return []logItem{l.inode(newObject, 0o100644), l.ref(newObject, "a", 99, "b")}
		}, "b=new gone medium small"},
		{"a new file at the index of another", func(l *logForgery, _ logItem) []logItem {
			return []logItem{l.inode(newObject, 0o100644), l.ref(newObject, "a", l.index("a", "small"), "new")}
		}, `!the place of name "new" in directory`},
		{"another name", func(l *logForgery, _ logItem) []logItem {
			small := l.object("a/small")
			return []logItem{l.inode(small, 0o100644), l.ref(small, "a", 99, "renamed")}
		}, "b gone medium renamed=small"},
		{"a name in a directory that is not there", func(l *logForgery, _ logItem) []logItem {
			r := l.ref(newObject, "a", 99, "new")
			r.key.offset = 6000
			return []logItem{l.inode(newObject, 0o100644), r}
		}, "b gone medium small"},
		{"no name", func(l *logForgery, _ logItem) []logItem {
			small := l.object("a/small")
			return []logItem{l.inode(small, 0o100644), {key{small, kindInodeRef, l.object("a")}, nil}}
		}, "b gone medium"},
		{"a reference of a file that is not there", func(l *logForgery, _ logItem) []logItem {
			return []logItem{l.ref(newObject, "a", 99, "new")}
		}, "!it has references, but is not there"},
		{"a reference that is cut", func(l *logForgery, _ logItem) []logItem {
			r := l.ref(newObject, "a", 99, "new")
			r.raw = r.raw[:12]
			return []logItem{l.inode(newObject, 0o100644), r}
		}, "!a reference of 12 bytes"},
		{"an empty name", func(l *logForgery, _ logItem) []logItem {
			return []logItem{l.inode(newObject, 0o100644), l.ref(newObject, "a", 99, "")}
		}, `!a reference with the name ""`},

		// What was deleted while it was open is left out.
		{"a file without links", func(l *logForgery, _ logItem) []logItem {
			n := l.inode(newObject, 0o100644)
			put32(n.raw[linksOffset:], 0)
			return []logItem{n, l.ref(newObject, "a", 99, "new")}
		}, "b gone medium small"},

		{"extents of what is not there", func(l *logForgery, _ logItem) []logItem {
			return []logItem{{key{newObject, kindExtentData, 0}, make([]byte, extentItemSize)}}
		}, "!it has extents, but is not there"},
		{"a root among the files", func(l *logForgery, _ logItem) []logItem {
			return []logItem{{key{newObject, kindRoot, 0}, make([]byte, rootItemSize)}}
		}, "!which is one of the tree of logs"},
		{"a part of an inline extent", func(l *logForgery, _ logItem) []logItem {
			object := l.object("zstd-inline")
			l.leaf(fsTree, key{object, kindExtentData, 0}, func(_, item []byte) { put64(item[8:], 4097) })
			e := make([]byte, extentItemSize)
			e[0x14] = extentRegular
			put64(e[extentLengthField:], 4096)
			n := l.inode(object, 0o100644)
			put64(n.raw[sizeOffset:], 8192)
			return []logItem{n, {key{object, kindExtentData, 4096}, e}}
		}, "!a part of an inline extent is replaced"},
		// What the log refers to must be sound as it was committed.
		{"an entry that was committed", func(l *logForgery, dir logItem) []logItem {
			l.leaf(fsTree, key{l.object("a"), kindDirIndex, l.index("a", "small")}, func(_, item []byte) { put16(item[0x1b:], 300) })
			return []logItem{dir, l.span("a", 0, all)}
		}, "!log of inode"},
		{"a reference that was committed", func(l *logForgery, _ logItem) []logItem {
			small := l.object("a/small")
			l.leaf(fsTree, key{small, kindInodeRef, l.object("a")}, func(_, item []byte) { put16(item[8:], 300) })
			return []logItem{l.inode(small, 0o100644)}
		}, "!a reference of 15 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := forgeLog(t)
			fs, err := l.write(c.log(l, l.inode(l.object("a"), 0o040755)))
			if wrong, ok := strings.CutPrefix(c.want, "!"); ok {
				checkForged(t, err, wrong)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := l.names(fs, "a"); got != c.want {
				t.Errorf("the directory has %q, want %q", got, c.want)
			}
			if err := disktest.WalkLeniently(fs, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLogKeepsSubvolumes: whoever deletes a subvolume, or puts something in its place,
// commits. So a log does neither, whatever it says.
func TestLogKeepsSubvolumes(t *testing.T) {
	for name, log := range map[string]func(l *logForgery) logItem{
		"all of no entries": func(l *logForgery) logItem { return l.span("", 0, maxOffset) },
		"a name for a file": func(l *logForgery) logItem {
			return l.entry("", l.index("", "sub"), "sub", inodeKey(l.object("a/small")), typeFile)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := forgeLog(t)
			fs, err := l.write([]logItem{l.inode(subvolumeRoot, 0o040755), log(l)})
			if err != nil {
				t.Fatal(err)
			}
			var kept []string
			if err := fs.ReadDir(fs.Info().Root, func(e disk.DirEntry) error {
				if disk.SubvolumeOf(e.Ino) != fsTree {
					kept = append(kept, string(e.Name))
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if slices.Sort(kept); !slices.Equal(kept, []string{"snapshot", "sub"}) {
				t.Errorf("the subvolumes are %q", kept)
			}
		})
	}
}
