package build

import (
	"bufio"
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

// Options say where a builder VM has what [Run] needs.
type Options struct {
	// SpecDevice is the spec disk: a block device, or a file.
	SpecDevice string
	// OutputDir is where the output disk is mounted.
	OutputDir string
	// BaseDir holds the base images, one OCI layout per folder: what a
	// Containerfile calls localhost/NAME is the folder NAME. It may be absent.
	BaseDir string
	// WorkDir keeps buildah's storage between builds, OutputDir/work if
	// empty. It is a cache: it may be lost at any time.
	WorkDir string
	// RunDir is for files that must not outlive a boot of the machine,
	// /run/drydock-build if empty.
	RunDir string
	// StorageDriver of buildah: "overlay", which is the default, or "vfs".
	StorageDriver string
	// Progress takes one plain line per step, and what buildah prints: the
	// serial console. The last line is "drydock build: finished BUILD_ID",
	// "drydock build: failed BUILD_ID: REASON" or "drydock build: nothing to
	// do".
	Progress io.Writer
	// Now is time.Now if nil.
	Now func() time.Time
}

func (o *Options) setDefaults() {
	if o.WorkDir == "" {
		o.WorkDir = filepath.Join(o.OutputDir, "work")
	}
	if o.RunDir == "" {
		o.RunDir = "/run/drydock-build"
	}
	if o.StorageDriver == "" {
		o.StorageDriver = "overlay"
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Run builds what the spec disk asks for, unless that has been done. It needs
// root, buildah, mke2fs, debugfs, e2fsck and dumpe2fs. When it fails, or is cut
// off, the manifest of the last build and the images that it names are still on
// the output disk.
func Run(ctx context.Context, o Options) error {
	o.setDefaults()
	spec, err := openSpec(o.SpecDevice, ReadSpec)
	if errors.Is(err, ErrNoSpec) {
		return nothingToDo(o.Progress, "there is no spec")
	}
	if err != nil {
		fmt.Fprintf(o.Progress, "drydock build: failed: %v\n", err)
		return err
	}
	last, err := readLast(o.OutputDir)
	if err != nil {
		// It is of no use to the host either: build anew.
		fmt.Fprintf(o.Progress, "drydock build: the last manifest does not count: %v\n", err)
	}
	if last.BuildID == spec.BuildID {
		return nothingToDo(o.Progress, spec.BuildID+" is built")
	}
	if err := buildSpec(ctx, o, spec, last); err != nil {
		fmt.Fprintf(o.Progress, "drydock build: failed %s: %v\n", spec.BuildID, err)
		return fmt.Errorf("build %s: %w", spec.BuildID, err)
	}
	fmt.Fprintf(o.Progress, "drydock build: finished %s\n", spec.BuildID)
	return nil
}

func nothingToDo(w io.Writer, why string) error {
	fmt.Fprintf(w, "drydock build: %s\ndrydock build: nothing to do\n", why)
	return nil
}

// openSpec lets read read the spec disk.
func openSpec(device string, read func(io.Reader) (Spec, error)) (Spec, error) {
	file, err := os.Open(device)
	if err != nil {
		return Spec{}, fmt.Errorf("open the spec disk: %w", err)
	}
	defer file.Close()
	return read(bufio.NewReaderSize(file, SpecAlign))
}

// readLast reads the manifest of the last build. There may be none.
func readLast(dir string) (Manifest, error) {
	file, err := os.Open(filepath.Join(dir, ManifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, nil
	}
	if err != nil {
		return Manifest{}, err
	}
	defer file.Close()
	return ReadManifest(file)
}

// buildSpec builds all images of a spec and writes the manifest.
func buildSpec(ctx context.Context, o Options, spec Spec, last Manifest) (err error) {
	context, err := freshFolder(filepath.Join(o.WorkDir, "spec"))
	if err != nil {
		return err
	}
	spec, err = openSpec(o.SpecDevice, func(r io.Reader) (Spec, error) { return ExtractSpec(ctx, r, context) })
	if err != nil {
		return err
	}
	log, err := openLog(o.OutputDir, spec.BuildID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	o.Progress = io.MultiWriter(o.Progress, log)

	tool, err := newBuildah(ctx, o)
	if err != nil {
		return err
	}
	bases, err := findBases(o.BaseDir)
	if err != nil {
		return err
	}
	manifest := Manifest{
		Version:    FormatVersion,
		BuildID:    spec.BuildID,
		SpecDigest: spec.SpecDigest,
		Log:        logFile(spec.BuildID),
	}
	for _, item := range spec.Images {
		b := builder{o: o, tool: tool, folder: filepath.Join(context, item.Name), image: item}
		image, err := b.build(ctx, bases, last)
		if err != nil {
			return fmt.Errorf("image %s: %w", item.Name, err)
		}
		manifest.Images = append(manifest.Images, image)
	}
	if err := tool.close(); err != nil {
		return err
	}
	return publish(o, manifest, log)
}

// publish makes the manifest the one that counts, and then removes what no
// longer does.
func publish(o Options, manifest Manifest, log *os.File) error {
	manifest.FinishedAt = o.Now().UTC().Truncate(time.Second)
	data, err := manifest.Marshal()
	if err != nil {
		return err
	}
	if err := log.Sync(); err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(o.OutputDir, ManifestFile), data, 0o644); err != nil {
		return err
	}
	return removeOld(o.OutputDir, manifest)
}

// removeOld removes the images and logs that the manifest does not name.
func removeOld(dir string, manifest Manifest) error {
	keep := map[string]bool{manifest.Log: true}
	for _, image := range manifest.Images {
		keep[image.File] = true
	}
	for _, pattern := range []string{"*/*.raw", "*/.*.tmp", "log/*.txt"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			if keep[filepath.ToSlash(name)] {
				continue
			}
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("remove an old build: %w", err)
			}
		}
	}
	return nil
}

func openLog(dir, buildID string) (*os.File, error) {
	path := filepath.Join(dir, filepath.FromSlash(logFile(buildID)))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return os.Create(path)
}

// freshFolder returns path as an empty folder.
func freshFolder(path string) (string, error) {
	if err := os.RemoveAll(path); err != nil {
		return "", err
	}
	return path, os.MkdirAll(path, 0o755)
}
