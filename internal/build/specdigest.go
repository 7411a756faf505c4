package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
)

// imageDigest adds up an image's folder, entry by entry in the order of their
// paths: for each, a line of its quoted path, mode and target, and its size,
// then its content.
type imageDigest struct{ sum hash.Hash }

func newImageDigest() imageDigest { return imageDigest{sha256.New()} }

// add adds an entry; its content, of exactly e.size bytes, follows by Write.
func (d imageDigest) add(e specEntry) {
	fmt.Fprintf(d.sum, "%q %q %q %d\n", e.path, e.mode, e.target, e.size)
}

func (d imageDigest) Write(p []byte) (int, error) { return d.sum.Write(p) }

func (d imageDigest) String() string { return "sha256:" + hex.EncodeToString(d.sum.Sum(nil)) }

// specDigest is made of the names and digests of all images.
func specDigest(images []SpecImage) string {
	sum := sha256.New()
	for _, image := range images {
		fmt.Fprintf(sum, "%q %q %s\n", image.Name, image.Containerfile, image.Digest)
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil))
}

func digestImage(root *os.Root, entries []specEntry) (string, error) {
	digest := newImageDigest()
	for _, entry := range entries {
		digest.add(entry)
		if err := copyEntry(context.Background(), digest, root, entry); err != nil {
			return "", err
		}
	}
	return digest.String(), nil
}

// copyEntry copies the content of a file to w, and fails when it no longer has
// the size that it was listed with. Other entries have no content.
func copyEntry(ctx context.Context, w io.Writer, root *os.Root, e specEntry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !e.mode.IsRegular() {
		return nil
	}
	file, err := root.Open(e.path)
	if err != nil {
		return fmt.Errorf("read the spec folder: %w", err)
	}
	defer file.Close()
	n, err := io.Copy(w, io.LimitReader(file, e.size+1))
	if err != nil {
		return fmt.Errorf("read the spec folder: %w", err)
	}
	if n != e.size {
		return specError(e.path, "changed while it was read")
	}
	return nil
}
