package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/drydock-vm/drydock/internal/atomicfile"
)

// recipe changes whenever the way from a container to an image does, so that
// images made in the old way are built again.
const recipe = "ext4-1"

// builder builds one image.
type builder struct {
	o      Options
	tool   *buildah
	folder string // the extracted folder of the image
	image  SpecImage
}

func (b builder) say(format string, arguments ...any) {
	fmt.Fprintf(b.o.Progress, "drydock build: %s: %s\n", b.image.Name, fmt.Sprintf(format, arguments...))
}

// build returns the image, and the old one when nothing changed for it.
func (b builder) build(ctx context.Context, bases []base, last Manifest) (Image, error) {
	text, err := os.ReadFile(filepath.Join(b.folder, b.image.Containerfile))
	if err != nil {
		return Image{}, err
	}
	bases = usedBases(bases, text)
	input := b.inputDigest(bases)
	old, have := findImage(last, b.image.Name, b.o.OutputDir)
	if have && old.InputDigest == input {
		b.say("unchanged, %s stays", old.Version)
		return old, nil
	}
	b.say("building")
	oci, err := b.tool.build(ctx, b.folder, b.image, bases)
	if err != nil {
		return Image{}, err
	}
	b.say("making the disk image")
	image, err := b.makeDisk(ctx, oci)
	if err != nil {
		return Image{}, err
	}
	image.OCIDigest, image.InputDigest = oci, input
	if have && old.SHA256 == image.SHA256 {
		b.say("built anew, and identical to %s, which stays", old.Version)
		old.OCIDigest, old.InputDigest = oci, input
		return old, os.Remove(b.tempPath())
	}
	return b.place(image)
}

// inputDigest adds up all that the image is made from.
func (b builder) inputDigest(bases []base) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "recipe %s\ntools %q\nspec %s\n", recipe, b.tool.version, b.image.Digest)
	for _, base := range bases {
		fmt.Fprintf(sum, "base %q %s\n", base.name, base.digest)
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil))
}

// findImage returns what the last build has of an image, if its file is there
// as a whole.
func findImage(last Manifest, name, dir string) (Image, bool) {
	for _, image := range last.Images {
		if image.Name != name {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(image.File)))
		return image, err == nil && info.Size() == image.Size
	}
	return Image{}, false
}

func (b builder) tempPath() string {
	return filepath.Join(b.o.OutputDir, b.image.Name, ".new.tmp")
}

// makeDisk makes the disk image of the built container, as a temporary file on
// the output disk. Its UUID is that of its content, which the OCI digest names.
func (b builder) makeDisk(ctx context.Context, oci string) (image Image, err error) {
	if err := os.MkdirAll(filepath.Dir(b.tempPath()), 0o755); err != nil {
		return Image{}, err
	}
	tree, err := b.tool.mount(ctx, b.image.Name)
	if err != nil {
		return Image{}, err
	}
	err = makeRootDisk(ctx, b.tempPath(), tree, oci)
	// Unmounted in any case: the machine may be about to power off.
	if err = errors.Join(err, b.tool.discard(context.WithoutCancel(ctx), b.image.Name)); err != nil {
		return Image{}, err
	}
	sum, size, err := sumAndSync(ctx, b.tempPath())
	if err != nil {
		return Image{}, err
	}
	return Image{Name: b.image.Name, Format: FormatRaw, Size: size, SHA256: sum}, nil
}

// place gives the image its version and its name.
func (b builder) place(image Image) (Image, error) {
	image.Version = b.o.Now().UTC().Format("20060102-150405") + "-" + image.SHA256[:12]
	image.File = imageFile(image.Name, image.Version)
	path := filepath.Join(b.o.OutputDir, filepath.FromSlash(image.File))
	if err := os.Rename(b.tempPath(), path); err != nil {
		return Image{}, err
	}
	b.say("version %s, %d MiB, sha256 %s", image.Version, image.Size>>20, image.SHA256)
	return image, atomicfile.SyncDir(filepath.Dir(path))
}

// sumAndSync brings a file to the disk and returns its SHA-256 and its size.
func sumAndSync(ctx context.Context, path string) (string, int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer file.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, contextReader{ctx, file})
	if err = errors.Join(err, file.Sync()); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(sum.Sum(nil)), size, nil
}

// contextReader ends with the error of its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
