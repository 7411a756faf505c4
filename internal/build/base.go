package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/drydock-vm/drydock/internal/atomicfile"
)

// Media types of the OCI image specification, version 1.
const (
	ociIndex    = "application/vnd.oci.image.index.v1+json"
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociConfig   = "application/vnd.oci.image.config.v1+json"
	ociLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// ociDescriptor refers to a blob of an OCI layout by its digest.
type ociDescriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

// MakeBase makes a base image of one layer, for linux/amd64, from the tar of a
// root filesystem. The folder dir, which must not exist, becomes its OCI
// layout; the base's name is that of the folder. The layer is not compressed:
// the disk that it lies on is, and unpacking it in the builder is quicker. The
// same tar gives the same layout.
func MakeBase(ctx context.Context, dir string, rootfs io.Reader) error {
	if err := makeBase(ctx, dir, rootfs); err != nil {
		return fmt.Errorf("make the base image %s: %w", filepath.Base(dir), err)
	}
	return nil
}

func makeBase(ctx context.Context, dir string, rootfs io.Reader) error {
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	layer, err := writeBlob(blobs, ociLayer, contextReader{ctx, rootfs})
	if err != nil {
		return err
	}
	config, err := writeJSONBlob(blobs, ociConfig, map[string]any{
		"architecture": "amd64",
		"os":           "linux",
		"created":      "1970-01-01T00:00:00Z",
		"config":       map[string]any{},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{layer.Digest}},
	})
	if err != nil {
		return err
	}
	manifest, err := writeJSONBlob(blobs, ociManifest, map[string]any{
		"schemaVersion": 2,
		"mediaType":     ociManifest,
		"config":        config,
		"layers":        []ociDescriptor{layer},
	})
	if err != nil {
		return err
	}
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     ociIndex,
		"manifests":     []ociDescriptor{manifest},
	})
	if err != nil {
		return err
	}
	layout := []byte(`{"imageLayoutVersion":"1.0.0"}`)
	if err := atomicfile.Write(filepath.Join(dir, "oci-layout"), layout, 0o644); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, "index.json"), index, 0o644)
}

// writeBlob writes a blob under its digest.
func writeBlob(blobs, mediaType string, content io.Reader) (ociDescriptor, error) {
	file, err := os.CreateTemp(blobs, ".*.tmp")
	if err != nil {
		return ociDescriptor{}, err
	}
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, sum), content)
	if err = errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		return ociDescriptor{}, errors.Join(err, os.Remove(file.Name()))
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	return ociDescriptor{mediaType, "sha256:" + digest, size}, os.Rename(file.Name(), filepath.Join(blobs, digest))
}

func writeJSONBlob(blobs, mediaType string, value any) (ociDescriptor, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return ociDescriptor{}, err
	}
	return writeBlob(blobs, mediaType, bytes.NewReader(data))
}
