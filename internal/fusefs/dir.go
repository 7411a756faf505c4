package fusefs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/drydock-vm/drydock/disk"
)

// handles are the directories that are open.
type handles struct {
	mu   sync.Mutex // guards what follows
	open map[uint64]*handle
	last uint64
}

// handle is an open directory. It is read when the first entry is asked for.
type handle struct {
	once sync.Once
	list *listing
}

func (h *handles) add() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		h.open = make(map[uint64]*handle)
	}
	h.last++
	h.open[h.last] = new(handle)
	return h.last
}

func (h *handles) get(number uint64) *handle {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open[number]
}

func (fs *filesystem) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.Fh = fs.handles.add()
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_CACHE_DIR
	return fuse.OK
}

func (fs *filesystem) ReleaseDir(in *fuse.ReleaseIn) {
	fs.handles.mu.Lock()
	defer fs.handles.mu.Unlock()
	delete(fs.handles.open, in.Fh)
}

func (fs *filesystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.readDir(in, func(e fuse.DirEntry, _ bool) bool { return out.AddDirEntry(e) })
}

// ReadDirPlus tells the attributes of each entry with its name. An inode that
// cannot be read is listed without them: who asks for it gets the error.
func (fs *filesystem) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.readDir(in, func(e fuse.DirEntry, named bool) bool {
		o := out.AddDirLookupEntry(e)
		if o == nil {
			return false
		}
		if named && fs.entry(e.Ino, o) != fuse.OK {
			*o = fuse.EntryOut{}
		}
		return true
	})
}

// readDir adds entries from in.Offset on, until there is no room. Offset 1 is
// behind ".", 2 behind "..", and n+3 behind entry n of the listing. An error of
// the directory comes behind what could be read of it.
func (fs *filesystem) readDir(in *fuse.ReadIn, add func(e fuse.DirEntry, named bool) bool) fuse.Status {
	dir := fs.node(in.NodeId)
	h := fs.handles.get(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	h.once.Do(func() { h.list = fs.listings.get(dir) })
	l := h.list
	for at := in.Offset; at < uint64(len(l.entries))+dots; at++ {
		var e fuse.DirEntry
		switch at {
		case 0:
			e = fuse.DirEntry{Name: ".", Ino: dir, Mode: disk.ModeDir}
		case 1:
			// Nobody but the kernel, which does not ask, knows the parent.
			e = fuse.DirEntry{Name: "..", Mode: disk.ModeDir}
		default:
			n := &l.entries[at-dots]
			e = fuse.DirEntry{Name: string(l.name(n)), Ino: n.ino, Mode: n.kind}
		}
		e.Off = at + 1
		if !add(e, at >= dots) {
			return fuse.OK
		}
	}
	if l.err != nil && in.Offset >= uint64(len(l.entries))+dots {
		return fs.status(dir, l.err)
	}
	return fuse.OK
}

// dots is how many entries are in front of those of the listing.
const dots = 2
