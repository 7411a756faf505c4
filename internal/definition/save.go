package definition

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/backup"
	"github.com/drydock-vm/drydock/internal/repository"
)

const (
	// MaxFile is the largest file that is kept, in bytes: an initrd with all
	// firmware in it has half of that.
	MaxFile = 256 << 20
	// maxFiles is how many files of the host a definition has: the specification of
	// a builder's images has most of them.
	maxFiles = 1000
)

// Save stores a definition with files of the host and drydock's part of the
// configuration, which was last written at the time at. It fills in d.Files, and
// says in d.Missing which could not be read, and what else keeps the VM from coming back
// with it. A file that is in parent, which may be nil, with its size and times is not read
// again. The caller holds the repository's lock, has loaded its index, and puts the
// objects into the snapshot, after a flush.
func Save(ctx context.Context, repo *repository.Repository, parent *repository.Snapshot, d *Definition, files []HostFile, config []byte, at time.Time) ([]backup.Object, error) {
	s := &saver{ctx: ctx, repo: repo, newest: at, before: load(ctx, repo, parent)}
	d.Version, d.Files = Version, nil
	for _, f := range files {
		if err := s.file(f, d); err != nil {
			return nil, fmt.Errorf("store the definition of %s: %s: %w", d.VM, f.Path, err)
		}
	}
	slices.SortFunc(d.Files, byPath)
	if err := d.check(); err != nil {
		d.Missing = append(d.Missing, "no drydock would restore the VM with it: "+err.Error())
	}
	if len(config) > maxConfig {
		d.Missing = append(d.Missing, fmt.Sprintf("its part of the configuration has %d bytes, and drydock restore vm takes at most %d", len(config), maxConfig))
	}
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, err
	}
	for _, part := range []struct {
		path string
		text []byte
	}{{definitionPath, append(text, '\n')}, {configPath, config}} {
		if err := s.text(part.path, part.text); err != nil {
			return nil, fmt.Errorf("store the definition of %s: %w", d.VM, err)
		}
	}
	s.objects[len(s.objects)-1].Tags = []string{Tag}
	return s.objects, nil
}

type saver struct {
	ctx     context.Context
	repo    *repository.Repository
	before  *earlier
	newest  time.Time // of what the definition was made from
	objects []backup.Object
}

// file stores a file of the host. One that cannot be read is missing; an error is the
// repository's.
func (s *saver) file(f HostFile, d *Definition) error {
	miss := func(why string) {
		d.Missing = append(d.Missing, fmt.Sprintf("the %s file %s: %s", f.Role, f.Path, why))
	}
	switch {
	case !cleanPath(f.Path):
		miss("its path is not absolute and clean, and drydock does not know where it lies")
		return nil
	case slices.ContainsFunc(d.Files, func(have File) bool { return have.Path == f.Path }):
		return nil
	case len(d.Files) == maxFiles:
		miss(fmt.Sprintf("there are more than %d files", maxFiles))
		return nil
	}
	out, err := s.read(f)
	if err != nil {
		if errors.Is(err, errUnread) {
			miss(err.Error())
			return nil
		}
		return err
	}
	d.Files = append(d.Files, *out)
	return nil
}

// errUnread is of a file that cannot be read.
var errUnread = errors.New("it cannot be read")

// read stores what a file has, unless the parent has it.
func (s *saver) read(f HostFile) (*File, error) {
	in, info, err := openFile(f.Path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnread, err)
	}
	defer in.Close()
	out := &File{Path: f.Path, Role: f.Role, Owner: OwnerOf(info), Size: info.Size()}
	var content []repository.ID
	if n, sum := s.before.find(s.repo, f.Path, info); n != nil {
		content, out.SHA256 = n.Content, sum
	} else {
		r := &reader{in: in, hash: sha256.New()}
		content, out.Size, _, err = s.repo.SaveStream(s.ctx, r)
		if r.err != nil {
			return nil, fmt.Errorf("%w: %w", errUnread, r.err)
		}
		if err != nil {
			return nil, err
		}
		out.SHA256 = hex.EncodeToString(r.hash.Sum(nil))
	}
	s.put(filesPath+f.Path, repository.Node{
		Mode: info.Mode().Perm(), ModTime: info.ModTime().UTC(), ChangeTime: changeTime(info),
		UID: out.UID, GID: out.GID, Size: uint64(out.Size), Content: content,
	})
	return out, nil
}

// text stores a file that drydock makes. It has the time of the newest thing that it
// was made from, so that it is the same each night.
func (s *saver) text(at string, text []byte) error {
	content, size, _, err := s.repo.SaveStream(s.ctx, bytes.NewReader(text))
	if err != nil {
		return err
	}
	s.put(at, repository.Node{Mode: 0o600, ModTime: s.newest, ChangeTime: s.newest, User: "root", Group: "root", Size: uint64(size), Content: content})
	return nil
}

// put adds an object.
func (s *saver) put(at string, n repository.Node) {
	n.Name, n.Type, n.Links = path.Base(at), repository.NodeFile, 1
	n.AccessTime = n.ModTime
	if n.ModTime.After(s.newest) {
		s.newest = n.ModTime
	}
	s.objects = append(s.objects, backup.Object{Path: at, Node: n})
}

// openFile opens a regular file that is not too large.
func openFile(name string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("it is not a regular file")
	case info.Size() > MaxFile:
		err = fmt.Errorf("it has %d bytes, and at most %d are kept", info.Size(), MaxFile)
	default:
		return f, info, nil
	}
	f.Close()
	return nil, nil, err
}

// reader reads a file, and remembers whether that is what failed.
type reader struct {
	in   io.Reader
	hash hash.Hash
	n    int64
	err  error // of in, but for its end
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	if r.n += int64(n); r.n > MaxFile {
		err = fmt.Errorf("it grew to more than %d bytes while it was read", MaxFile)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	_, _ = r.hash.Write(p[:n]) // never fails (hash.Hash)
	return n, err
}
