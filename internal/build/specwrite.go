package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/drydock-vm/drydock/internal/atomicfile"
)

// WriteSpec makes the spec disk at path from a folder that holds, for each
// image, a folder IMAGE with a Containerfile and what it copies. The disk is
// raw, and there as a whole or not at all: an older one at path is replaced in
// one step. A running builder keeps the one that it was started with.
//
// buildID tells this build from earlier ones: lower-case letters, digits and
// . _ -, at most 63 bytes. What is wrong with the folder is a [*FormatError].
func WriteSpec(ctx context.Context, path, folder, buildID string) (spec Spec, err error) {
	spec, entries, err := readFolder(folder)
	if err != nil {
		return Spec{}, err
	}
	spec.BuildID = buildID
	header, err := spec.marshal()
	if err != nil {
		return Spec{}, err
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return Spec{}, fmt.Errorf("read the spec folder: %w", err)
	}
	defer root.Close()
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return Spec{}, fmt.Errorf("write the spec disk: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	err = writeSpecTar(ctx, temp, header, spec, entries, root)
	err = errors.Join(err, padFile(temp, SpecAlign), temp.Chmod(0o644), temp.Sync(), temp.Close())
	if err != nil {
		return Spec{}, fmt.Errorf("write the spec disk: %w", err)
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return Spec{}, fmt.Errorf("write the spec disk: %w", err)
	}
	if err := atomicfile.SyncDir(filepath.Dir(path)); err != nil {
		return Spec{}, fmt.Errorf("write the spec disk: %w", err)
	}
	return spec, nil
}

func writeSpecTar(ctx context.Context, w io.Writer, header []byte, spec Spec, entries map[string][]specEntry, root *os.Root) error {
	out := tar.NewWriter(w)
	if err := out.WriteHeader(tarHeader(specEntry{path: specHeader, mode: 0o644, size: int64(len(header))})); err != nil {
		return err
	}
	if _, err := out.Write(header); err != nil {
		return err
	}
	for _, image := range spec.Images {
		digest := newImageDigest()
		for _, entry := range entries[image.Name] {
			digest.add(entry)
			if err := out.WriteHeader(tarHeader(entry)); err != nil {
				return err
			}
			if err := copyEntry(ctx, io.MultiWriter(out, digest), root, entry); err != nil {
				return err
			}
		}
		if digest.String() != image.Digest {
			return specError(image.Name, "changed while it was read")
		}
	}
	return out.Close()
}

// tarHeader has the same times and owners for all entries: they are no part of
// a spec.
func tarHeader(e specEntry) *tar.Header {
	header := &tar.Header{
		Name:     e.path,
		Typeflag: tar.TypeReg,
		Mode:     int64(e.mode.Perm()),
		Size:     e.size,
		Linkname: e.target,
		ModTime:  time.Unix(0, 0),
		Format:   tar.FormatPAX,
	}
	switch e.mode.Type() {
	case fs.ModeDir:
		header.Typeflag, header.Name = tar.TypeDir, e.path+"/"
	case fs.ModeSymlink:
		header.Typeflag = tar.TypeSymlink
	}
	return header
}

// padFile extends a file with zeros to a multiple of align bytes.
func padFile(file *os.File, align int64) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return file.Truncate((info.Size() + align - 1) / align * align)
}
