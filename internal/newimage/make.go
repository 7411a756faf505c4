package newimage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/disk"
	"github.com/drydock-vm/drydock/internal/atomicfile"
	"github.com/drydock-vm/drydock/internal/diff"
	"github.com/drydock-vm/drydock/internal/writervm"
)

// Options are the choices of one image. Filesystem, Size and Read are required.
type Options struct {
	Filesystem string // "ext4", "xfs" or "btrfs"
	Size       int64  // of the image, in bytes
	UUID       [16]byte
	Label      []byte // hostile bytes; what the filesystem cannot have is left out

	// Writer is the machine that writes XFS and btrfs. Its zero value boots a kernel of
	// this host.
	Writer writervm.Options

	// Overwrite allows a target that is there, which is replaced.
	Overwrite bool
	// Keep is the path at which [MakeSkeleton] leaves the skeleton, for
	// [OpenSkeleton]; "" leaves none. It is on the filesystem of the target.
	Keep string
	// Grow has [MakeSkeleton] make a filesystem that is larger than Size where the files
	// do not fit.
	Grow bool
	// Read opens the filesystem on a raw image, in a confined reader.
	Read func(ctx context.Context, image *os.File) (fsys disk.Filesystem, stop func(), err error)
	// Convert writes the raw image at from to a new qcow2 image at to. It is
	// needed for targets whose name ends in .qcow2.
	Convert func(ctx context.Context, from, to string) error

	// Progress is called now and then, from any goroutine, unless it is nil.
	Progress func(Progress)
	// Differs is called for what is not in the image as it is in the backup,
	// unless it is nil.
	Differs func(*diff.Change)
	// Damaged is called for what cannot be read of the backup, unless it is nil.
	Damaged func(path []byte, err error)
	// Warn is called for what the new filesystem does not take, with a text that can be
	// printed, unless it is nil. Differs is told of it too.
	Warn func(path []byte, text string)
}

// Progress is how far the making of an image is.
type Progress struct {
	Step      string // "reading the backup", "checking the image"
	Bytes, Of int64  // of content, holes not counted
}

// Report is what was made.
type Report struct {
	Files int64 `json:"files"` // regular files in the backup, each name
	Dirs  int64 `json:"dirs"`
	Bytes int64 `json:"bytes"` // the sizes of Files
	Size  int64 `json:"size"`  // of the image
	// Differs counts what is not in the image as it is in the backup.
	Differs diff.Summary `json:"differs"`
	// Damaged counts what could not be read of the backup.
	Damaged int64 `json:"damaged"`
}

// The reasons why there is no image, found with [errors.Is].
var (
	// ErrFilesystem is of a filesystem that cannot be made faithfully.
	ErrFilesystem = errors.New("cannot be made")
	// ErrTarget is of a target that is there, or that another run is making.
	ErrTarget = errors.New("cannot write there")
	// ErrSize is of an image that has no room for the files.
	ErrSize = errors.New("too small for what is in the backup")
)

// Make makes the image target of the files in fsys. It takes root.
func Make(ctx context.Context, fsys disk.Filesystem, target string, opts Options) (*Report, error) {
	m := &maker{ctx: ctx, opts: opts, target: filepath.Clean(target), report: &Report{Size: opts.Size}}
	m.src = &source{Filesystem: fsys, hidden: map[uint64]bool{}, told: m.tell, shares: opts.Filesystem == "btrfs"}
	if err := m.make(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("make image %s: %w", target, err)
	}
	return m.report, nil
}

// maker makes one image.
type maker struct {
	ctx    context.Context
	opts   Options
	target string
	src    *source
	survey survey
	work   *workplace
	step   string
	report *Report
	// warned is what the machine has warned of that wrote the image; nil if it is another.
	warned *warnings
	// found are the files of a filesystem that was made before which are in the backup
	// still, by their inode numbers there; nil if it is made now.
	found map[uint64]bool
}

func (m *maker) make() error {
	build, err := m.builder()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(m.target); err == nil && !m.opts.Overwrite {
		return fmt.Errorf("%w: it is there already (use another name; --overwrite replaces it)", ErrTarget)
	}
	if err := m.begin(openWorkplace); err != nil {
		return err
	}
	defer m.work.close()
	if err := m.populate(build); err != nil {
		return err
	}
	if err := m.check(); err != nil {
		return err
	}
	return m.finish()
}

// begin looks at what there is to be made, and takes a workplace.
func (m *maker) begin(open func(target string) (*workplace, error)) (err error) {
	if m.survey, err = m.src.survey(m.ctx, m.damaged); err != nil {
		return err
	}
	m.report.Files, m.report.Dirs, m.report.Bytes = m.survey.files, m.survey.dirs, m.survey.bytes
	if m.survey.least > m.opts.Size {
		return fmt.Errorf("%w: files of %d bytes, holes not counted, do not fit into %d (choose a larger size)", ErrSize, m.survey.least, m.opts.Size)
	}
	m.work, err = open(m.target)
	return err
}

// builder returns what makes the filesystem.
func (m *maker) builder() (func() error, error) {
	build := m.btrfs
	switch m.opts.Filesystem {
	case "ext4":
		return m.ext4, nil
	case "xfs":
		build = m.xfs
	case "btrfs":
	default:
		return nil, fmt.Errorf("%.20q %w: choose ext4, xfs or btrfs", m.opts.Filesystem, ErrFilesystem)
	}
	if m.opts.Size < m.least() {
		return nil, fmt.Errorf("%w: %s has at least %d bytes (choose a larger size)", ErrSize, m.opts.Filesystem, m.least())
	}
	var err error
	m.opts.Writer.Kernel, err = m.opts.Writer.Kernel.Find(m.opts.Filesystem)
	return build, err
}

// maxAttempts is how often an image is begun anew because a file of the backup
// turned out to be damaged.
const maxAttempts = 20

// populate makes the filesystem. The programs end at the first file that cannot be
// read: it is left out then, and they begin anew.
func (m *maker) populate(build func() error) error {
	for attempt := 1; ; attempt++ {
		err := m.attempt(build)
		if err == nil || m.ctx.Err() != nil {
			return err
		}
		if !m.src.hideDamaged(m.damaged) {
			return err
		}
		if attempt == maxAttempts {
			return fmt.Errorf("too many files of the backup are damaged (restore to a folder, which goes on after each): %w", err)
		}
	}
}

func (m *maker) attempt(build func() error) error {
	if err := m.work.begin(m.opts.Size); err != nil {
		return err
	}
	m.src.restart()
	m.step = "reading the backup"
	return build()
}

func (m *maker) damaged(path []byte, err error) {
	m.report.Damaged++
	if m.opts.Damaged != nil {
		m.opts.Damaged(path, err)
	}
}

func (m *maker) tell(bytes int64) {
	if m.opts.Progress != nil {
		m.opts.Progress(Progress{m.step, bytes, m.survey.stored})
	}
}

// finish makes the image durable, and gives it its name.
func (m *maker) finish() error {
	from := m.work.image
	if strings.HasSuffix(m.target, ".qcow2") {
		if err := m.opts.Convert(m.ctx, from, m.work.converted); err != nil {
			return err
		}
		from = m.work.converted
	}
	if err := syncFile(from); err != nil {
		return err
	}
	flags := uint(unix.RENAME_NOREPLACE)
	if m.opts.Overwrite {
		flags = 0
	}
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, m.target, flags); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: m.target, Err: err}
	}
	return atomicfile.SyncDir(filepath.Dir(m.target))
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
