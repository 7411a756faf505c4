package restore

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/drydock-vm/drydock/disk"
)

// tempPrefix begins the names of what is not whole yet. Behind it come the 26
// characters of [rand.Text].
const (
	tempPrefix = ".drydock-"
	tempLength = len(tempPrefix) + 26
)

// kept reports whether a file of an earlier restore is there, whole: it got its name,
// and before that its time, when it was.
func (r *restorer) kept(d *folder, name string, inode disk.Inode) bool {
	if !r.opts.Resume || inode.Type() != disk.ModeRegular {
		return false
	}
	st, err := d.root.Lstat(name)
	if err != nil || !st.Mode().IsRegular() || st.Size() != inode.Size {
		return false
	}
	at := st.ModTime()
	return at.Unix() == inode.Modify.Sec && at.Nanosecond() == int(inode.Modify.Nsec)
}

// sweep removes what an earlier restore was making in a folder when it was killed.
func (r *restorer) sweep(d *folder) error {
	if !r.opts.Resume {
		return nil
	}
	list, err := d.root.Open(".")
	if err != nil {
		return onTarget(err)
	}
	defer list.Close()
	names, err := list.Readdirnames(-1)
	if err != nil {
		return onTarget(err)
	}
	for _, name := range names {
		if len(name) != tempLength || !strings.HasPrefix(name, tempPrefix) {
			continue
		}
		if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return onTarget(err)
		}
	}
	return nil
}
