package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"

	"github.com/drydock-vm/drydock/internal/atomicfile"
	"github.com/drydock-vm/drydock/internal/flock"
)

// MaxSize is the largest image that the store takes, in bytes: what comes from a
// builder must not be able to ask for more than a person would.
const MaxSize = 16 << 40

// Want is what an image should be. The zero value takes any.
type Want struct {
	Size   int64  // bytes; 0 is any
	SHA256 string // hexadecimal, lower case; empty is any
}

var digestPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Import stores the raw disk that r yields as a version of an image, and returns
// it. An empty version stands for one made of the time and the digest. Where r
// is not what want says, the error is a [DigestError] or [ErrSize], and nothing
// is left behind. Where the store has a version with this digest, that one is
// returned with [ErrUnchanged], without reading r if want has the digest. The
// version is not promoted.
func (s *Store) Import(ctx context.Context, name, version string, r io.Reader, want Want, meta Meta) (Version, error) {
	if err := s.checkImport(name, version, want); err != nil {
		return Version{}, fmt.Errorf("import: %w", err)
	}
	if want.SHA256 != "" {
		have, err := s.ByDigest(name, want.SHA256)
		if err == nil {
			return have, fmt.Errorf("import %s as %s: %w, as version %s", name, version, ErrUnchanged, have.ID)
		}
		if !errors.Is(err, ErrNoVersion) {
			return Version{}, err
		}
	}
	temp, err := s.startImport(name)
	if err != nil {
		return Version{}, fmt.Errorf("import %s %s: %w", name, version, err)
	}
	v := Version{Image: name, ID: version, Imported: s.now().UTC(), Meta: meta}
	err = v.receive(ctx, filepath.Join(temp.Path(), diskFile), r, want)
	if err == nil {
		err = s.finishImport(&v, temp.Path())
	}
	if errors.Is(err, ErrUnchanged) {
		return v, errors.Join(err, discardImport(temp))
	}
	if err != nil {
		return Version{}, errors.Join(fmt.Errorf("import %s %s: %w", name, version, err), discardImport(temp))
	}
	return v, temp.Release()
}

func (s *Store) checkImport(name, version string, want Want) error {
	if err := ValidName(name); err != nil {
		return err
	}
	if version != "" {
		if err := ValidName(version); err != nil {
			return err
		}
	}
	if want.SHA256 != "" && !digestPattern.MatchString(want.SHA256) {
		return fmt.Errorf("%q is not a SHA-256 in hexadecimal: %w", want.SHA256, ErrDigest)
	}
	if want.Size < 0 || want.Size > MaxSize {
		return fmt.Errorf("an image of %d bytes: %w (at most %d bytes are taken)", want.Size, ErrSize, int64(MaxSize))
	}
	return nil
}

// startImport makes the folder that an import is collected in. One that
// is not locked was left by a process that died.
func (s *Store) startImport(name string) (*flock.Lock, error) {
	var temp *flock.Lock
	err := s.locked(func() error {
		dir := filepath.Join(s.dir, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := s.cleanImports(name); err != nil {
			return err
		}
		path, err := os.MkdirTemp(dir, importPrefix)
		if err != nil {
			return spaceError(dir, 0, err)
		}
		temp, err = flock.TakeFolder(path)
		return err
	})
	return temp, err
}

func discardImport(temp *flock.Lock) error {
	return errors.Join(os.RemoveAll(temp.Path()), temp.Release())
}

// cleanImports removes what imports of dead processes have left. The store is
// locked.
func (s *Store) cleanImports(name string) error {
	left, err := filepath.Glob(filepath.Join(s.dir, name, importPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		lock, err := flock.TakeFolder(path)
		if _, held := errors.AsType[*flock.HeldError](err); held || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = errors.Join(os.RemoveAll(path), lock.Release())
		}
		if err != nil {
			return fmt.Errorf("remove an unfinished import: %w", err)
		}
	}
	return nil
}

// receive writes r to the file at path, and fills in size and digest.
func (v *Version) receive(ctx context.Context, path string, r io.Reader, want Want) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return spaceError(path, want.Size, err)
	}
	defer f.Close()
	limit := int64(MaxSize)
	if want.Size > 0 {
		limit = want.Size
	}
	digest := sha256.New()
	n, err := copySparse(ctx, f, r, limit, digest)
	if err != nil {
		return spaceError(path, max(want.Size, n), err)
	}
	if want.Size > 0 && n != want.Size {
		return fmt.Errorf("it has %d bytes, and should have %d: %w (it was cut short on its way)", n, want.Size, ErrSize)
	}
	if n == 0 {
		return fmt.Errorf("it is empty: %w", ErrSize)
	}
	v.Size, v.SHA256 = n, hexDigest(digest)
	if want.SHA256 != "" && v.SHA256 != want.SHA256 {
		return &DigestError{What: "the image", Want: want.SHA256, Got: v.SHA256, Hint: "it was damaged on its way, or the manifest is of another build; nothing was imported"}
	}
	if err := f.Chmod(0o400); err != nil {
		return err
	}
	return spaceError(path, n, f.Sync())
}

// finishImport makes the folder temp the version v, unless there is one like it:
// then v becomes that one.
func (s *Store) finishImport(v *Version, temp string) error {
	if v.ID == "" {
		v.ID = v.Imported.Format("20060102T150405Z") + "-" + v.SHA256[:8]
	}
	return s.locked(func() error {
		versions, err := s.List(v.Image)
		if err != nil {
			return err
		}
		for _, have := range versions {
			if have.SHA256 == v.SHA256 {
				wanted := v.ID
				*v = have
				return fmt.Errorf("import %s as %s: %w, as version %s", have.Image, wanted, ErrUnchanged, have.ID)
			}
			v.Sequence = max(v.Sequence, have.Sequence)
		}
		v.Sequence++
		if err := writeSynced(filepath.Join(temp, versionFile), v); err != nil {
			return spaceError(temp, v.Size, err)
		}
		dir := filepath.Join(s.dir, v.Image)
		err = unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, filepath.Join(dir, v.ID), unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("%w (choose another version)", ErrExists)
		}
		if err != nil {
			return fmt.Errorf("put it in its place: %w", err)
		}
		return atomicfile.SyncDir(dir)
	})
}

// writeSynced writes a record into a folder that becomes visible later.
func writeSynced(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

func hexDigest(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }
