package restore

import (
	"bytes"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/repository"
)

const (
	bitSetuid = 0o4000
	bitSetgid = 0o2000
)

// attributes gives what is whole its owner, extended attributes, times and mode.
// The order matters: a new owner takes setuid bits and capabilities, and an ACL
// changes the mode. What the target does not take is a warning.
func (r *restorer) attributes(at place, path []byte, inode disk.Inode) error {
	soft := func(what string, err error) error {
		if err == nil {
			return nil
		}
		if err = onTarget(fmt.Errorf("%s: %w", what, err)); fatal(err) {
			return err
		}
		r.warn(path, err)
		return nil
	}
	if r.asRoot {
		if err := soft("owner", at.in.root.Lchown(at.name, int(inode.UID), int(inode.GID))); err != nil {
			return err
		}
	}
	if err := r.xattrs(at, path, inode, soft); err != nil {
		return err
	}
	if err := soft("times", setTimes(at, inode)); err != nil {
		return err
	}
	if inode.Type() == disk.ModeSymlink {
		return nil
	}
	return soft("mode", at.in.root.Chmod(at.name, r.mode(inode)))
}

// mode is the mode that is restored, without what nobody asked for.
func (r *restorer) mode(inode disk.Inode) fs.FileMode {
	mode := inode.Mode
	if inode.Type() != disk.ModeDir && !r.opts.Setuid && mode&(bitSetuid|bitSetgid) != 0 {
		mode &^= bitSetuid | bitSetgid
		r.report.LeftOut.Setuid++
	}
	return repository.FileMode(mode) &^ fs.ModeType
}

// setTimes sets the time of modification, also of a symlink, which os.Root cannot
// do. The time of access is the same: the real one is not known to a backup.
func setTimes(at place, inode disk.Inode) error {
	t := unix.Timespec{Sec: inode.Modify.Sec, Nsec: int64(inode.Modify.Nsec)}
	return unix.UtimesNanoAt(int(at.in.fd.Fd()), at.name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}

func (r *restorer) xattrs(at place, path []byte, inode disk.Inode, soft func(string, error) error) error {
	list, err := r.fsys.Xattrs(inode.Ino)
	if err != nil {
		if fatal(err) {
			return err
		}
		r.warn(path, err)
	}
	// Linux has no setxattrat before 6.13. The path leads through the descriptor
	// of the folder; the one name behind it is not followed.
	file := fmt.Sprintf("/proc/self/fd/%d/%s", at.in.fd.Fd(), at.name)
	for _, x := range list {
		if !r.allowed(x.Name) {
			continue
		}
		name := string(x.Name)
		if err := soft(fmt.Sprintf("attribute %q", name), unix.Lsetxattr(file, name, x.Value, 0)); err != nil {
			return err
		}
	}
	return nil
}

// capability is the attribute that gives who executes a file privileges.
const capability = "security.capability"

// allowed reports whether an attribute is restored, and counts what is not.
func (r *restorer) allowed(name []byte) bool {
	namespace, _, _ := strings.Cut(string(name), ".")
	switch {
	case bytes.IndexByte(name, 0) >= 0:
	case string(name) == capability:
		if r.opts.Setuid && r.asRoot {
			return true
		}
		r.report.LeftOut.Capabilities++
		return false
	case namespace == "user", string(name) == "system.posix_acl_access", string(name) == "system.posix_acl_default":
		return true
	case namespace == "security" || namespace == "trusted":
		if r.asRoot {
			return true
		}
	}
	r.report.LeftOut.Xattrs++
	return false
}
