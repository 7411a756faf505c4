package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
)

// Options say how a filesystem is mounted.
type Options struct {
	// FSName is what mount(8) and df(1) show as the device; by default
	// "drydock".
	FSName string
	// AllowOther lets other users of the host in. Where root mounts, the
	// guest's owners, modes and ACLs then hold for their numbers of the host;
	// otherwise everybody may read everything, and /etc/fuse.conf must allow
	// the option.
	AllowOther bool
	// NoExec forbids the host to execute what is in the mount.
	NoExec bool
	// Report is told of the first error of each inode, from any goroutine. It
	// may be nil. Inode 0 stands for a fault of the mount itself.
	Report func(ino uint64, err error)
}

const (
	// maxTransfer is how much content the kernel asks for at once, in bytes:
	// the most that it can without being configured for more.
	maxTransfer = 1 << 20
	// maxBackground is how many requests for content ahead of what programs
	// ask for the kernel keeps open.
	maxBackground = 32
)

// Mounted is a filesystem that is mounted.
type Mounted struct {
	dir    string
	server *fuse.Server
}

// Mount mounts fsys at the folder dir. It stays until [Mounted.Unmount], or until
// somebody else unmounts it.
func Mount(dir string, fsys disk.Filesystem, opts Options) (*Mounted, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := checkPlace(dir); err != nil {
		return nil, fmt.Errorf("mount at %s: %w", dir, err)
	}
	if opts.FSName == "" {
		opts.FSName = "drydock"
	}
	if opts.Report == nil {
		opts.Report = func(uint64, error) {}
	}
	server, err := fuse.NewServer(newFilesystem(fsys, opts.Report), dir, mountOptions(&opts))
	if err != nil {
		return nil, fmt.Errorf("mount at %s: %w", dir, err)
	}
	// The library opens /dev/fuse so that programs which this process starts inherit
	// it: one that uses the mount would then keep it alive when this process is
	// killed, and wait for answers for ever.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, errors.Join(fmt.Errorf("mount at %s: keep it from other programs: %w", dir, err), server.Unmount())
	}
	m := &Mounted{dir: dir, server: server}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mount at %s: %w", dir, err), m.unmount(true))
	}
	if os.Geteuid() == 0 {
		m.readAhead()
	}
	return m, nil
}

// checkPlace refuses what is no folder, and a mount whose process has died: of
// that the kernel may still know some files, but not how much space it has.
func checkPlace(dir string) error {
	var statfs unix.Statfs_t
	err := unix.Statfs(dir, &statfs)
	if errors.Is(err, unix.ENOTCONN) {
		return fmt.Errorf("%w: the process of a mount that is there has died (fusermount3 -u removes it)", err)
	}
	if err != nil {
		return err
	}
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = unix.ENOTDIR
	}
	return err
}

func mountOptions(opts *Options) *fuse.MountOptions {
	root := os.Geteuid() == 0
	o := &fuse.MountOptions{
		FsName: opts.FSName, Name: "drydock", AllowOther: opts.AllowOther,
		Options:  []string{"ro", "nosuid", "nodev"},
		MaxWrite: maxTransfer, MaxBackground: maxBackground,
		EnableSymlinkCaching: true, ExplicitDataCacheControl: true, DisableSplice: true,
		// Only root can call mount(2); others have fusermount3 do it.
		DirectMount: root, DirectMountFlags: unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV,
		// It says what is said better by Wait and Report.
		Logger: log.New(io.Discard, "", 0),
		PanicHandler: func(fault any) fuse.Status {
			opts.Report(0, fmt.Errorf("a request failed by a bug: %v", fault))
			return fuse.EIO
		},
	}
	if opts.NoExec {
		o.Options = append(o.Options, "noexec")
	}
	if root {
		o.Options = append(o.Options, "default_permissions")
		o.EnableAcl = opts.AllowOther
	}
	return o
}

// Wait returns when the filesystem is no longer mounted.
func (m *Mounted) Wait() { m.server.Wait() }

// Unmount unmounts the filesystem, and returns when no request is in progress. It
// fails with [unix.EBUSY] while a file in it is open, or somebody's working
// directory; the mount then goes on.
func (m *Mounted) Unmount() error {
	if err := m.unmount(false); err != nil {
		return err
	}
	m.server.Wait()
	return nil
}

// Detach takes the filesystem out of the host's tree at once. What is open stays
// readable until it is closed; [Mounted.Wait] returns after that.
func (m *Mounted) Detach() error { return m.unmount(true) }

func (m *Mounted) unmount(lazy bool) error {
	if os.Geteuid() == 0 {
		flags := unix.UMOUNT_NOFOLLOW
		if lazy {
			flags |= unix.MNT_DETACH
		}
		if err := unix.Unmount(m.dir, flags); err != nil {
			return fmt.Errorf("unmount %s: %w", m.dir, err)
		}
		return nil
	}
	args := []string{"-u", "--", m.dir}
	if lazy {
		args = append([]string{"-z"}, args...)
	}
	out, err := exec.Command("fusermount3", args...).CombinedOutput()
	if err != nil && bytes.Contains(out, []byte("busy")) {
		err = unix.EBUSY // it has no exit code of its own
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w: %s", m.dir, err, bytes.TrimSpace(out))
	}
	return nil
}

// readAhead has the kernel read further ahead than the 128 KiB of its default, of
// this mount alone. It is only a matter of speed, so that a host without sysfs
// will do.
func (m *Mounted) readAhead() {
	var st unix.Stat_t
	if err := unix.Stat(m.dir, &st); err != nil {
		return
	}
	path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev))
	_ = os.WriteFile(path, fmt.Appendf(nil, "%d", maxTransfer>>10), 0)
}
