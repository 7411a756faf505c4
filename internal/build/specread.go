package build

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// ErrNoSpec says that the spec disk is blank.
var ErrNoSpec = errors.New("there is no spec on the disk")

// ReadSpec reads the header of a spec disk, and nothing more. It returns
// [ErrNoSpec] for a disk of zeros, and a [*FormatError] for one that is wrong.
func ReadSpec(r io.Reader) (Spec, error) {
	return readSpecHeader(tar.NewReader(r))
}

func readSpecHeader(in *tar.Reader) (Spec, error) {
	header, err := in.Next()
	if errors.Is(err, io.EOF) {
		return Spec{}, ErrNoSpec
	}
	if err != nil {
		return Spec{}, specError("tar", "%v", err)
	}
	if header.Name != specHeader || header.Typeflag != tar.TypeReg || header.Size > maxSpecHeader {
		return Spec{}, specError("tar", "it does not begin with %s", specHeader)
	}
	data, err := io.ReadAll(in)
	if err != nil {
		return Spec{}, specError(specHeader, "%v", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var spec Spec
	if err := decoder.Decode(&spec); err != nil {
		return Spec{}, specError(specHeader, "%v", err)
	}
	again, err := spec.marshal()
	if err != nil {
		return Spec{}, err
	}
	if !bytes.Equal(again, data) {
		return Spec{}, specError(specHeader, "not as drydock writes it")
	}
	return spec, nil
}

// ExtractSpec reads a whole spec disk and writes its folders into dir, which
// must be empty. It checks the digests that the header gives.
func ExtractSpec(ctx context.Context, r io.Reader, dir string) (Spec, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Spec{}, fmt.Errorf("extract the spec: %w", err)
	}
	defer root.Close()
	in := tar.NewReader(r)
	spec, err := readSpecHeader(in)
	if err != nil {
		return Spec{}, err
	}
	digests := make(map[string]imageDigest, len(spec.Images))
	for _, image := range spec.Images {
		digests[image.Name] = newImageDigest()
	}
	limits := new(specLimits)
	for {
		if err := ctx.Err(); err != nil {
			return Spec{}, err
		}
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Spec{}, specError("tar", "%v", err)
		}
		if err := extractEntry(root, in, header, digests, limits); err != nil {
			return Spec{}, err
		}
	}
	for _, image := range spec.Images {
		if digest := digests[image.Name].String(); digest != image.Digest {
			return Spec{}, specError(image.Name, "digest is %s, not %s", digest, image.Digest)
		}
	}
	return spec, nil
}

func extractEntry(root *os.Root, in io.Reader, header *tar.Header, digests map[string]imageDigest, limits *specLimits) error {
	entry, err := specEntryOf(header)
	if err != nil {
		return err
	}
	if err := limits.take(entry); err != nil {
		return err
	}
	image, _, _ := strings.Cut(entry.path, "/")
	digest, ok := digests[image]
	if !ok {
		return specError(entry.path, "belongs to no image")
	}
	digest.add(entry)
	// The modes become part of the image: they must not depend on the umask.
	switch entry.mode.Type() {
	case fs.ModeDir:
		err = errors.Join(root.Mkdir(entry.path, 0o755), root.Chmod(entry.path, entry.mode.Perm()))
	case fs.ModeSymlink:
		err = root.Symlink(entry.target, entry.path)
	default:
		err = extractFile(root, io.TeeReader(in, digest), entry)
	}
	if err != nil {
		return fmt.Errorf("extract the spec: %w", err)
	}
	return nil
}

func extractFile(root *os.Root, content io.Reader, e specEntry) error {
	file, err := root.OpenFile(e.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, e.mode.Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Chmod(e.mode.Perm()), file.Close())
}

// specEntryOf accepts what writeSpecTar writes, and nothing else.
func specEntryOf(header *tar.Header) (specEntry, error) {
	entry := specEntry{
		path:   strings.TrimSuffix(header.Name, "/"),
		mode:   fs.FileMode(header.Mode).Perm(),
		target: header.Linkname,
	}
	switch header.Typeflag {
	case tar.TypeReg:
		entry.size = header.Size
	case tar.TypeDir:
		entry.mode |= fs.ModeDir
	case tar.TypeSymlink:
		entry.mode |= fs.ModeSymlink
	default:
		return entry, specError(header.Name, "entry of the unknown type %q", header.Typeflag)
	}
	if !fs.ValidPath(entry.path) || path.Clean(entry.path) != entry.path || entry.path == "." {
		return entry, specError(header.Name, "not a path inside the spec")
	}
	if entry.mode != canonicalMode(entry.mode) || (entry.target != "") != (header.Typeflag == tar.TypeSymlink) {
		return entry, specError(header.Name, "not as drydock writes it")
	}
	return entry, nil
}
