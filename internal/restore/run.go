package restore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/escape"
)

// Options are the choices of one restore.
type Options struct {
	// Paths are what is restored: absolute paths of the source, files, or
	// folders with what is below them. None means everything.
	Paths [][]byte

	// Setuid restores setuid and setgid bits of files, and, as root, their
	// capabilities. The setgid bit of a folder gives nobody anything, and always
	// comes back.
	Setuid bool
	// Devices restores device nodes, which takes root.
	Devices bool
	// Flags restores chattr(1)'s flags "a", "d" and "i", of which the first and the
	// last take root, and keep root from changing what was restored.
	Flags bool
	// Overwrite allows a target that has something in it. What has the name of
	// something that is restored is replaced, never written to; a folder is kept
	// where a folder comes, with what else is in it, and never gives way to
	// anything else.
	Overwrite bool

	// Resume goes on with a restore of the same backup to the same target that was
	// killed: regular files that are there with their size and time of modification
	// are kept, everything else is as with Overwrite. It is not for a host that
	// went down: there a file can have its time, and not its content.
	Resume bool

	// MaxEntries and MaxBytes end a restore of more names, or of files of more bytes,
	// holes among them; 0 is [DefaultMaxEntries] and [DefaultMaxBytes]. In a
	// repository a few folders that lie in each other many times over, and one
	// piece that is in a file again and again, would be without end.
	MaxEntries, MaxBytes int64

	// Progress, unless it is nil, is called often, from the goroutine of Run.
	Progress func(Report)
}

// The defaults of [Options]: what no VM has.
const (
	DefaultMaxEntries = 1 << 27 // twice as many inodes as ext4 gives to 1 TiB
	DefaultMaxBytes   = 1 << 50
)

// ErrTarget is of a target that cannot be restored to as it is.
var ErrTarget = errors.New("cannot restore there")

const (
	// maxDepth is how deep folders may lie in each other. Each level costs two
	// file descriptors. Paths of 4096 bytes, the longest that Linux takes in one
	// go, have at most twice as many levels, and in practice a few dozen.
	maxDepth = 2048
	// maxPath is the longest path, in bytes: 16 times what Linux takes in one go.
	// All the folders on the way to where the restore is are open, and each has
	// its path in memory.
	maxPath = 64 << 10
	// maxVisited is how many folders are restored. It costs some 200 MB to
	// remember them.
	maxVisited = 1 << 22
	// maxHeld is how many entries, of all the folders on the way to where the
	// restore is, are held. It costs some 300 MB to get there.
	maxHeld = 4 * disk.MaxDirEntries
	// maxPendingLinks is how many files are remembered until their last name was
	// seen. Names of others become copies, with a warning.
	maxPendingLinks = 1 << 20
	// pieceSize is how much is read at a time, in bytes.
	pieceSize = 1 << 20
)

// restorer does one restore.
type restorer struct {
	ctx    context.Context
	fsys   disk.Filesystem
	opts   Options
	root   *os.Root // the target
	asRoot bool
	temp   string // the name of what is not whole yet, which no guest can guess
	piece  []byte

	visited map[uint64]bool // folders, by inode number
	links   map[uint64]*firstName
	held    int
	entries int64 // of all folders
	bytes   int64 // of all files
	flagged []flagged
	report  Report
}

// Run restores files and folders of fsys to the folder target, each at its own path
// below it: /var/lib/app/letter.txt becomes target/var/lib/app/letter.txt. Folders on
// the way get the attributes that they had, unless they are there already. Target
// is made if it is absent; its parent must be there.
//
// An error means that the restore is not complete, and the report says how far it
// came; what is in target then may not be on stable storage. When only some things
// could not be restored the error is nil, and they are in the report. A path in
// Options that does not exist is [disk.ErrNotExist], and nothing is restored.
func Run(ctx context.Context, fsys disk.Filesystem, target string, opts Options) (Report, error) {
	opts.Overwrite = opts.Overwrite || opts.Resume
	opts.MaxEntries = cmp.Or(opts.MaxEntries, DefaultMaxEntries)
	opts.MaxBytes = cmp.Or(opts.MaxBytes, DefaultMaxBytes)
	r := &restorer{
		ctx: ctx, fsys: fsys, opts: opts, asRoot: os.Geteuid() == 0,
		temp: tempPrefix + rand.Text(), piece: make([]byte, pieceSize),
		visited: map[uint64]bool{}, links: map[uint64]*firstName{},
	}
	if err := r.run(target); err != nil {
		err = fmt.Errorf("restore to %s: %w", target, err)
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			err = fmt.Errorf("%w (make room, then go on with --resume; %d bytes in %d files are there)", err, r.report.Bytes, r.report.Files)
		}
		return r.report, err
	}
	return r.report, nil
}

func (r *restorer) run(target string) error {
	wanted, err := r.plan()
	if err != nil {
		return err
	}
	made, err := r.open(target)
	if err != nil {
		return err
	}
	defer func() { _ = r.root.Close() }()
	top, err := r.top()
	if err != nil {
		return err
	}
	defer top.close()
	if err := r.children(top, wanted); err != nil {
		return err
	}
	if made {
		if err := r.attributes(top.self(), top.path, top.inode); err != nil {
			return err
		}
	}
	if err := r.setFlags(); err != nil {
		return err
	}
	return r.sync(top, target, made)
}

// want says what of a folder is restored.
type want struct {
	all   bool
	below map[string]*want // where all is false, by name
}

// plan checks that the paths exist before anything is written.
func (r *restorer) plan() (*want, error) {
	root := &want{all: len(r.opts.Paths) == 0}
	for _, path := range r.opts.Paths {
		if _, err := disk.Lookup(r.fsys, path); err != nil {
			if errors.Is(err, disk.ErrNotExist) {
				return nil, fmt.Errorf("%w (symlinks on the way are not followed)", err)
			}
			return nil, err
		}
		at := root
		for name := range bytes.SplitSeq(path, []byte("/")) {
			if len(name) == 0 {
				continue
			}
			if at.below[string(name)] == nil {
				if at.below == nil {
					at.below = map[string]*want{}
				}
				at.below[string(name)] = &want{}
			}
			at = at.below[string(name)]
		}
		at.all = true
	}
	return root, nil
}

// open opens the target, and makes it if it is not there.
func (r *restorer) open(target string) (made bool, err error) {
	err = os.Mkdir(target, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	made = err == nil
	if r.root, err = os.OpenRoot(target); err != nil {
		return made, err
	}
	if made || r.opts.Overwrite {
		return made, nil
	}
	if err := r.empty(); err != nil {
		_ = r.root.Close()
		return false, err
	}
	return false, nil
}

func (r *restorer) empty() error {
	d, err := r.root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: it is not empty, there is %s in it (use another folder; --resume goes on with a restore that was cut off, --overwrite replaces what is there)", ErrTarget, escape.Bytes([]byte(names[0])))
}

func (r *restorer) top() (*folder, error) {
	inode, err := r.fsys.Inode(r.fsys.Info().Root)
	if err != nil {
		return nil, err
	}
	if inode.Type() != disk.ModeDir {
		return nil, r.damaged("root directory", "its mode is %#o, not that of a directory", inode.Mode)
	}
	if err := r.visit(inode.Ino, 0); err != nil {
		return nil, err
	}
	sub, err := r.root.OpenRoot(".")
	if err != nil {
		return nil, err
	}
	return newFolder(sub, []byte("/"), inode, 0)
}

// sync makes the restore durable at once: to sync each file as it comes would take
// many times as long.
func (r *restorer) sync(top *folder, target string, made bool) error {
	if err := unix.Syncfs(int(top.fd.Fd())); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if !made {
		return nil
	}
	parent, err := os.Open(filepath.Dir(filepath.Clean(target)))
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.Sync()
}
