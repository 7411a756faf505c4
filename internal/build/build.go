// Package build makes root disk images from Containerfiles, inside the builder
// VM, and defines what goes in and what comes out.
//
// Host and builder share nothing but block devices:
//
//   - The spec disk goes in. The host writes it with [WriteSpec] from a folder
//     of Containerfiles, and the builder gets it read-only. It is a tar that
//     begins with a [Spec], zero-padded to [SpecAlign].
//   - The output disk comes out. The builder writes each image to
//     NAME/VERSION.raw on its filesystem, the log of the build to
//     log/BUILD_ID.txt, and last, in one step, a [Manifest] to manifest.json.
//     The host reads them after the builder has stopped, with [ParseManifest].
//
// [Run] is what happens in between: `drydock build run`, at each boot of the
// builder. It uses the real buildah, and mke2fs for the image.
//
// Promises: the same folder gives the same spec disk, but for the build's
// identifier. The same inputs (Containerfile, its context, the base images, the
// tools) give the identical image, byte for byte; and then nothing is built. A
// manifest names only images that are whole on the disk. What a builder wrote
// is hostile to the host: ParseManifest accepts one spelling of each manifest,
// within limits, with names that are no paths.
package build

import (
	"fmt"
	"regexp"
)

// FormatVersion of the spec disk and of the manifest. A reader refuses others.
const FormatVersion = 1

// namePattern is that of image names, image versions and build identifiers.
// They become names of files and folders on the host, and those of the image
// store are no longer.
var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// digestPattern is that of digests which name their algorithm.
var digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// sumPattern is that of a bare SHA-256 in hexadecimal.
var sumPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// maxImages bounds the images of one spec and of one manifest.
const maxImages = 256

// FormatError says what is wrong with a spec or a manifest.
type FormatError struct {
	What   string // "spec" or "manifest"
	Field  string // the field, or the name of the file, that is wrong
	Reason string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s: %s: %s", e.What, e.Field, e.Reason)
}
