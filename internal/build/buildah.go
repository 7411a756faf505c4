package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/drydock-vm/drydock/internal/atomicfile"
)

// buildah is the real buildah, with a storage of its own that is kept from
// build to build for the base images in it.
type buildah struct {
	storage string
	run     string
	driver  string
	version string // of it and of mke2fs
	output  io.Writer
}

// acceptAnything is a signature policy: the base images lie on the builder's
// own disk, and the builder is trusted with nothing but its own images.
const acceptAnything = `{"default":[{"type":"insecureAcceptAnything"}]}`

func newBuildah(ctx context.Context, o Options) (*buildah, error) {
	b := &buildah{
		storage: filepath.Join(o.WorkDir, "storage"),
		run:     o.RunDir,
		driver:  o.StorageDriver,
		output:  o.Progress,
	}
	for _, tool := range [][]string{{"buildah", "--version"}, {"mke2fs", "-V"}} {
		output, err := exec.CommandContext(ctx, tool[0], tool[1]).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", strings.Join(tool, " "), err)
		}
		b.version += string(output)
	}
	if err := b.recoverStorage(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(b.run, 0o700); err != nil {
		return nil, err
	}
	return b, atomicfile.Write(b.policy(), []byte(acceptAnything), 0o644)
}

func (b *buildah) policy() string { return filepath.Join(b.run, "policy.json") }

// inUse marks the storage of a build that has not come to its end.
func (b *buildah) inUse() string { return b.storage + ".in-use" }

// recoverStorage throws a storage away that was in use when a build failed or
// the power did: it is only a cache, and nobody knows what is left in it.
func (b *buildah) recoverStorage() error {
	_, err := os.Stat(b.inUse())
	if err == nil {
		err = os.RemoveAll(b.storage)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("recover buildah's storage: %w", err)
	}
	if err := os.MkdirAll(b.storage, 0o700); err != nil {
		return err
	}
	return atomicfile.Write(b.inUse(), nil, 0o600)
}

// close says that the storage is in order.
func (b *buildah) close() error { return os.Remove(b.inUse()) }

// build builds an image as localhost/drydock/NAME and returns the digest of its
// OCI manifest. All times in it are those of the epoch.
func (b *buildah) build(ctx context.Context, folder string, image SpecImage, bases []base) (string, error) {
	for _, base := range bases {
		if err := b.pull(ctx, base); err != nil {
			return "", err
		}
	}
	_, err := b.call(ctx, "build", "--signature-policy", b.policy(), "--pull-never", "--timestamp", "0",
		"--no-cache", "--layers=false", "--isolation", "chroot",
		"--file", filepath.Join(folder, image.Containerfile), "--tag", builtName(image.Name), folder)
	if err != nil {
		return "", err
	}
	return b.digest(ctx, builtName(image.Name))
}

func builtName(name string) string { return "localhost/drydock/" + name }

// digest returns the digest of an image's OCI manifest.
func (b *buildah) digest(ctx context.Context, name string) (string, error) {
	output, err := b.call(ctx, "inspect", "--type", "image", "--format", "{{.FromImageDigest}}", name)
	return strings.TrimSpace(output), err
}

// pull brings a base image into the storage, unless it is there.
func (b *buildah) pull(ctx context.Context, base base) error {
	marker := filepath.Join(b.storage, "base-"+base.name)
	have, err := os.ReadFile(marker)
	if err == nil && string(have) == base.digest {
		return nil
	}
	fmt.Fprintf(b.output, "drydock build: base %s: unpacking\n", base.name)
	// buildah gives it the name of its path: localhost/NAME, seen from there.
	if _, err := b.callIn(ctx, filepath.Dir(base.path), "pull", "--quiet", "--signature-policy", b.policy(), "oci:"+base.name); err != nil {
		return err
	}
	return atomicfile.Write(marker, []byte(base.digest), 0o644)
}

// mount mounts what was built under a name, and returns where.
func (b *buildah) mount(ctx context.Context, name string) (string, error) {
	if _, err := b.call(ctx, "from", "--signature-policy", b.policy(), "--pull-never",
		"--name", "drydock-"+name, builtName(name)); err != nil {
		return "", err
	}
	path, err := b.call(ctx, "mount", "drydock-"+name)
	return strings.TrimSpace(path), err
}

// discard removes what was built under a name: the disk image is made.
func (b *buildah) discard(ctx context.Context, name string) error {
	_, err := b.call(ctx, "rm", "drydock-"+name)
	if err != nil {
		return err
	}
	_, err = b.call(ctx, "rmi", builtName(name))
	return err
}

// stopGrace is how long buildah may take to unmount what it has mounted.
const stopGrace = 5 * time.Second

// call runs buildah and returns its standard output. What it says on the way
// goes to the log, and its last words into the error.
func (b *buildah) call(ctx context.Context, verb string, arguments ...string) (string, error) {
	return b.callIn(ctx, b.run, verb, arguments...)
}

// callIn is call in a folder.
func (b *buildah) callIn(ctx context.Context, dir, verb string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, "buildah", append([]string{
		"--root", b.storage, "--runroot", b.run, "--storage-driver", b.driver, verb}, arguments...)...)
	command.Dir = dir
	command.Env = append(os.Environ(), "BUILDAH_ISOLATION=chroot", "TMPDIR="+b.storage)
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = stopGrace
	var output bytes.Buffer
	last := &lastLine{}
	command.Stderr = io.MultiWriter(b.output, last)
	command.Stdout = &output
	if verb == "build" {
		command.Stdout = b.output
	}
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("buildah %s: %w: %s", verb, errors.Join(err, ctx.Err()), last)
	}
	return output.String(), nil
}

// maxLastLine bounds what is kept of a line, in bytes.
const maxLastLine = 1000

// lastLine keeps the last line that is written to it, but for empty ones and
// for those that buildah logs, which begin with their time: its error does not.
type lastLine struct{ line, next []byte }

func (l *lastLine) Write(p []byte) (int, error) {
	for _, c := range p {
		switch {
		case c != '\n' && len(l.next) < maxLastLine:
			l.next = append(l.next, c)
		case c == '\n':
			l.end()
		}
	}
	return len(p), nil
}

func (l *lastLine) end() {
	if len(bytes.TrimSpace(l.next)) > 0 && !bytes.HasPrefix(l.next, []byte("time=")) {
		l.line = l.next
	}
	l.next = nil
}

func (l *lastLine) String() string {
	l.end()
	return string(l.line)
}

// base is a base image: an OCI layout on the builder's disk.
type base struct {
	name   string
	path   string
	digest string // of its index.json, which pins all the rest
}

// reference is what a Containerfile calls the base.
func (b base) reference() string { return "localhost/" + b.name }

func findBases(dir string) ([]base, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*", "index.json"))
	if err != nil {
		return nil, err
	}
	var bases []base
	for _, path := range paths {
		index, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("base image: %w", err)
		}
		sum := sha256.Sum256(index)
		folder := filepath.Dir(path)
		if !namePattern.MatchString(filepath.Base(folder)) {
			return nil, fmt.Errorf("base image: the folder %q is not a name (lower-case letters, digits and . _ - only)", folder)
		}
		bases = append(bases, base{filepath.Base(folder), folder, "sha256:" + hex.EncodeToString(sum[:])})
	}
	return bases, nil
}

// usedBases returns the bases that a Containerfile may use: those that it names
// anywhere.
func usedBases(bases []base, containerfile []byte) []base {
	var used []base
	for _, base := range bases {
		if bytes.Contains(containerfile, []byte(base.reference())) {
			used = append(used, base)
		}
	}
	return used
}
